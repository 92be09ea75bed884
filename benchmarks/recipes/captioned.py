"""Photos of ``collect_pictures.py`` with captions, as a dataset: what heads and text towers are chosen by.

    python benchmarks/recipes/captioned.py pictures recipes-data/captioned
    lpcvc-zoo evaluate efficientnet_lite0_224_text_xs.conse_minilm --dataset recipes-data/captioned

``captioned.tsv`` names a package's file and three captions, written for this project by a language model that
was shown the photo. None of the photos is one of the bundled benchmark's. Those of ``pictures/ingredients``
are in the pictures that EfficientViT learns from (never their captions): for those models ``--held-out``
keeps the others alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from captions import of

CAPTIONS = Path(__file__).with_name("captioned.tsv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path, help="what collect_pictures.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", action="store_true", help="only photos that no picture is made of")
    given = parser.parse_args()
    photos = captioned(given.pictures)
    if given.held_out:
        photos = {path: captions for path, captions in photos.items() if path.parent.name == "held_out"}
    write(photos, given.out)
    texts = {text for own in photos.values() for text in own}
    print(f"{given.out}: {len(photos)} photos, {len(texts)} texts")


def captioned(pictures: Path) -> dict[Path, list[str]]:
    """Captions by the collected file; SystemExit where a file that has some was not collected."""
    manifest = pictures / "manifest.csv"
    if not manifest.is_file():
        raise SystemExit(f"There is no {manifest}: run collect_pictures.py {pictures} first.")
    with manifest.open(encoding="utf-8") as file:
        collected = {_origin(row["made_of"]): pictures / row["file"] for row in csv.DictReader(file)}
    rows = of(CAPTIONS)
    missing = [origin for origin, *_ in rows if origin not in collected]
    if missing:
        raise SystemExit(f"{pictures}: the manifest lacks {len(missing)} photos, such as {missing[0]}.")
    return {collected[origin]: captions for origin, *captions in rows}


def _origin(made_of: str) -> str:
    """A package's file without the package's version: "gcompris-qt-data: some/file"."""
    package, _, path = made_of.partition(": ")
    return f"{package.partition(' ')[0]}: {path}"


def write(photos: dict[Path, list[str]], out: Path) -> None:
    """The challenge's own form, with links to the photos."""
    out.mkdir(parents=True, exist_ok=True)
    for earlier in (*out.glob("backgrounds_*"), *out.glob("held_out_*")):
        if earlier.is_symlink():
            earlier.unlink()
    texts = sorted({text for captions in photos.values() for text in captions})
    rows = []
    for path, captions in photos.items():
        link = out / f"{path.parent.name}_{path.name}"
        link.symlink_to(path.resolve())
        rows.append((link.name, ";".join(str(texts.index(caption)) for caption in captions)))
    table(out / "img_list.csv", ("Image_names", "Text_nums"), rows)
    table(out / "txt_list.csv", ("Text_nums", "Unique_Texts"), list(enumerate(texts)))


def table(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    main()
