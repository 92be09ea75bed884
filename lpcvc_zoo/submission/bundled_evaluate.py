"""Score the two ONNX encoders beside this file by the rules' metric. Needs only what requirements.txt lists.

    python evaluate.py FOLDER [--images FOLDER] [--limit N]

FOLDER holds txt_list.csv (text id, text) and img_list.csv (file name, id;id;id), and the images or images/.
Prints one JSON object; what of the data could not be used is counted on stderr. Images are matched by file
name, whatever its case. Texts that differ in case, spaces or Unicode form alone are one text.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
SPECIAL = ("<|startoftext|>", "<|endoftext|>")  # they would end or begin a text
TEXT_IDS = ("text_nums", "text_num", "text_ids", "text_id")
COLUMNS = {  # names that a header may give the two columns, wherever they stand
    "txt_list.csv": ((*TEXT_IDS, "id"), ("unique_texts", "unique_text", "texts", "text", "caption")),
    "img_list.csv": (("image_names", "image_name", "images", "image", "file_name", "filename"), TEXT_IDS),
}


def prepare_image(path: Path, spec: dict[str, Any]) -> Any:
    """An image file as float32 [1, 3, height, width] in 0..high, not normalised."""
    try:
        with Image.open(path) as opened:
            image = to_rgb(opened)
    except Exception as error:  # Pillow raises many kinds for broken files
        sys.exit(f"Error: {path} can't be read as an image: {type(error).__name__}: {error}")
    if spec["fit"] == "squash":
        pixels = np.asarray(image.resize((spec["width"], spec["height"])))
    else:
        short, long = sorted(image.size)
        new_short, new_long = spec["shorter_edge"], int(spec["shorter_edge"] * long / short)
        if new_long > spec["width"]:
            new_short, new_long = int(spec["width"] * new_short / new_long), spec["width"]
        size = (new_short, new_long) if image.width <= image.height else (new_long, new_short)
        pixels = np.zeros((spec["height"], spec["width"], 3), np.uint8)
        pixels[: size[1], : size[0]] = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    scaled = pixels.astype(np.float32) * np.float32(spec["high"]) / np.float32(255)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def to_rgb(image: Image.Image) -> Image.Image:
    """As Pillow converts it, but for 16-bit greyscale, which keeps its upper byte."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        upper = np.asarray(image).clip(0, 65_535) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    return image.convert("RGB")


def prepare_text(text: str, tokenizer: Tokenizer, spec: dict[str, Any]) -> Any:
    """A text as int32 ids [1, length], or ids and mask [2, 1, length]."""
    encoded = tokenizer.encode(text)
    ids = np.array([encoded.ids], np.int32)
    mask = np.array([encoded.attention_mask], np.int32)
    return np.stack([ids, mask]) if len(spec["planes"]) == 2 else ids


def read_data(folder: Path, images: Path | None) -> tuple[list[Path], list[str], list[list[int]]]:
    """Image files, different texts, and for every image the places of its texts."""
    unused: Counter[str] = Counter()
    texts: dict[str, str] = {}  # the first spelling, by its key
    keys: dict[str, str] = {}  # by text id
    for shown, text in rows(folder / "txt_list.csv", numbers_in=0):
        key = text_key(text)
        special = any(token in text for token in SPECIAL)
        if not key or special or keys.setdefault(text_id(shown), key) != key:
            unused["rows of txt_list.csv have no text, a special token in it, or the id of another text"] += 1
        else:
            texts.setdefault(key, text)
    places = {key: place for place, key in enumerate(texts)}
    around = [images] if images else [folder / "images", folder]
    owned: dict[Path, set[int]] = {}
    for name, identities in rows(folder / "img_list.csv", numbers_in=1):
        given = [text_id(part.strip()) for part in identities.split(";") if part.strip()]
        unused["text ids of img_list.csv are not in txt_list.csv"] += sum(one not in keys for one in given)
        mine = {places[keys[one]] for one in given if one in keys}
        image = find(name, around)
        if image and mine:
            owned.setdefault(image, set()).update(mine)
        else:
            unused["rows of img_list.csv have no image that is there, or no known text"] += 1
    for what, count in (+unused).items():
        print(f"warning: {count} {what}; left out", file=sys.stderr)
    if not owned:
        looked = " and ".join(map(str, around))
        sys.exit(f"Error: expected images of img_list.csv in {looked}, with texts; found none that has both.")
    return list(owned), list(texts.values()), [sorted(mine) for mine in owned.values()]


def rows(path: Path, numbers_in: int) -> list[list[str]]:
    """Both columns below the header: a row with a name of theirs, or no number where all others have one.

    Columns without such a name are the first and the second.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            stripped = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True)]
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"Error: {path} can't be read: {error}")
    table = [row for row in stripped if any(row)]
    names = [cell.lower().replace(" ", "_") for cell in table[0]] if table else []
    named = [[place for place, name in enumerate(names) if name in column] for column in COLUMNS[path.name]]
    chosen = [(*places, column)[0] for column, places in enumerate(named)]
    table = [[row[place] if place < len(row) else "" for place in chosen] for row in table]
    parts = [filter(None, map(str.strip, row[numbers_in].split(";"))) for row in table]
    numeric = [all(part.isdecimal() for part in row) for row in parts]
    unnamed = numeric[1:] and all(numeric[1:]) and not numeric[0]
    return table[1:] if any(named) or unnamed else table


def text_key(text: str) -> str:
    """Equal for texts that differ only in what CLIP's tokenizer drops: case, runs of spaces, Unicode form."""
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def text_id(shown: str) -> str:
    """Text ids that are numbers are compared as numbers: 007 is 7."""
    return shown.lstrip("0") or "0" if shown.isdecimal() else shown


def find(name: str, folders: list[Path]) -> Path | None:
    """The file of that name or path in a folder; case and Unicode form don't count where none is exact."""
    parts = PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute():
        return None
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    for path in folders:
        for part in parts:
            alike = listing(path).get(file_key(part), [])
            path = alike[0] if len(alike) == 1 else path / part
        if path.is_file():
            return path
    return None


@cache
def listing(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        found.setdefault(file_key(path.name), []).append(path)
    return found


def file_key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def embed(session: onnxruntime.InferenceSession, inputs: list[Any]) -> Any:
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: one})[0] for one in inputs])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--limit", type=int, help="only the first so many images")
    given = parser.parse_args()
    if given.limit is not None and given.limit < 1:
        parser.error(f"--limit: expected 1 or more, got {given.limit}")
    contract = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    length = contract["text"]["length"]
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=contract["text"]["pad_id"], pad_token="<|endoftext|>")
    options = onnxruntime.SessionOptions()  # or it would round to 8 bits what w8a16 keeps at 16
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    image, text = (
        onnxruntime.InferenceSession(str(HERE / manifest[tower]["file"]), options, ["CPUExecutionProvider"])
        for tower in ("image", "text")
    )
    names, texts, owned = read_data(given.folder, given.images)
    names, owned = names[: given.limit], owned[: given.limit]
    images = embed(image, [prepare_image(path, contract["image"]) for path in names])
    ranked = np.argsort(
        -(images @ embed(text, [prepare_text(one, tokenizer, contract["text"]) for one in texts]).T)
    )
    k = contract["metric"]["k"]
    hits = [len(set(row[:k].tolist()) & set(mine)) for row, mine in zip(ranked, owned, strict=True)]
    scores = {
        f"recall@{k} (fractional)": float(
            np.mean([hit / len(mine) for hit, mine in zip(hits, owned, strict=True)])
        ),
        f"recall@{k} (any-hit)": float(np.mean([hit > 0 for hit in hits])),
    }
    print(
        json.dumps(
            {"model": manifest["entry"], "images": len(names), "texts": len(texts), **scores}, indent=2
        )
    )


if __name__ == "__main__":
    main()
