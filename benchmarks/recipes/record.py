"""Keep what a run was trained on in ``trained_on/``, for the tests to hold the bundled benchmark against it.

    python benchmarks/recipes/record.py runs/text_xs_words/data.txt runs/text_xs/data.txt
    python benchmarks/recipes/record.py runs/efficientvit_b0/2/data.txt --pictures pictures

``texts.txt.gz``: the start of each text's sha256. ``pictures.csv.gz``: the package's file that each picture
was made of, and the start of that file's sha256 (an emoji's as it was drawn). ``backgrounds.png``: those that
were whole pictures, ``TILE`` pixels each, row by row; the rest are cut-outs and drawings, which no photo is.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from pathlib import Path

from PIL import Image

from lpcvc_zoo.files import written_whole

FOLDER = Path(__file__).parent / "trained_on"
DIGITS = 10  # of a sha256: two of a million items share them with a chance of one half
TILE, ACROSS = 16, 16  # pixels, tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="data.txt of a run")
    parser.add_argument("--pictures", type=Path, help="what collect_pictures.py wrote")
    given = parser.parse_args()
    lines = [line for path in given.data for line in path.read_text().splitlines()]
    if given.pictures is None:
        keep("texts.txt", sorted({line[: line.index(" ") + 1 + DIGITS] for line in lines}))
        return
    seen = {line.removeprefix("image ") for line in lines}
    with (given.pictures / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["sha256"] in seen]
    missing = seen - {row["sha256"] for row in rows}
    if missing:
        raise SystemExit(f"{given.pictures}: the manifest lacks {len(missing)} pictures of the run.")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        sorted({(row["source_sha256"][:DIGITS], row["made_of"]) for row in rows})
    )
    keep("pictures.csv", ["sha256,made_of", *text.getvalue().splitlines()])
    whole = [given.pictures / row["file"] for row in rows if "/backgrounds/" in row["file"]]
    with written_whole(FOLDER / "backgrounds.png") as temporary:
        sheet(whole).save(temporary, optimize=True)


def keep(name: str, lines: list[str]) -> None:
    with written_whole(FOLDER / f"{name}.gz") as temporary:
        temporary.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    print(f"{name}.gz: {len(lines)} lines")


def sheet(paths: list[Path]) -> Image.Image:
    """Pictures side by side, each squeezed to a tile as ``collect_pictures.thumbnail`` squeezes them."""
    made = Image.new("RGB", (ACROSS * TILE, -(-len(paths) // ACROSS) * TILE))
    for place, path in enumerate(paths):
        small = Image.open(path).convert("RGB").resize((TILE, TILE), Image.Resampling.BOX, reducing_gap=4)
        made.paste(small, (place % ACROSS * TILE, place // ACROSS * TILE))
    return made


if __name__ == "__main__":
    main()
