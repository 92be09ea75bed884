"""Score the two ONNX encoders beside this file by the rules' metric. Needs only what requirements.txt lists.

    python evaluate.py FOLDER [--images FOLDER] [--limit N]

FOLDER holds txt_list.csv (text id, text) and img_list.csv (file name, id;id;id), and the images or images/.
Prints one JSON object. Images are matched by file name, whatever its case.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent


def prepare_image(path: Path, spec: dict[str, Any]) -> Any:
    """An image file as float32 [1, 3, height, width] in 0..high, not normalised."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
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


def prepare_text(text: str, tokenizer: Tokenizer, spec: dict[str, Any]) -> Any:
    """A text as int32 ids [1, length], or ids and mask [2, 1, length]."""
    encoded = tokenizer.encode(text)
    ids = np.array([encoded.ids], np.int32)
    mask = np.array([encoded.attention_mask], np.int32)
    return np.stack([ids, mask]) if len(spec["planes"]) == 2 else ids


def read_data(folder: Path, images: Path | None) -> tuple[list[Path], list[str], list[list[int]]]:
    """Image files, different texts, and for every image the places of its texts."""
    places: dict[str, int] = {}
    texts: list[str] = []
    for identity, text in rows(folder / "txt_list.csv"):
        if text not in texts:
            texts.append(text)
        places[identity.strip()] = texts.index(text)
    around = [images] if images else [folder / "images", folder]
    files = {path.name.lower(): path for where in around[::-1] if where.is_dir() for path in where.iterdir()}
    names, owned = [], []
    for name, identities in rows(folder / "img_list.csv"):
        mine = {places[part.strip()] for part in identities.split(";") if part.strip() in places}
        if mine and name.lower() in files:
            names.append(files[name.lower()])
            owned.append(sorted(mine))
    return names, texts, owned


def rows(path: Path) -> list[list[str]]:
    """The first two columns below the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [row[:2] for row in list(csv.reader(file))[1:] if len(row) >= 2]


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
    contract = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    length = contract["text"]["length"]
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=contract["text"]["pad_id"], pad_token="<|endoftext|>")
    image, text = (
        onnxruntime.InferenceSession(str(HERE / manifest[tower]["file"]), providers=["CPUExecutionProvider"])
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
