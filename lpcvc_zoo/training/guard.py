"""The bundled benchmark kept out of training and of every choice, by what its files hold, not by its name."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.preprocess import load_rgb
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.retrieval.records import Problem, text_key
from lpcvc_zoo.training.parts import Rows, filled
from lpcvc_zoo.training.pixels import Done
from lpcvc_zoo.training.progress import Say, tell
from lpcvc_zoo.training.sources import ImageRef, TrainingData, bytes_of, identities, load_image

BY_CHANCE = 20  # of its 474 captions; a large corpus may hold a few such as "a red apple." by itself
SAME_PICTURE = 8.0  # mean difference in grey levels below which two images of one size are the same
THINNEST = 1024  # times as long as wide; beyond it no pixel would be left on the contract's canvas
_FLAWS = {  # what stands for the sha256 of an image that is left out, and why it is
    "00" * 32: "is no whole image that Pillow can read",
    "11" * 32: f"is more than {THINNEST} times as long as it is wide",
}
_BROKEN, _THIN = _FLAWS
_AT_ONCE = 4096  # images; their hashes are one file of the cache
Use = Literal["trained on", "validated on"]


def guarded(
    data: TrainingData, use: Use, *, say: Say | None = None, done: Done | None = None
) -> tuple[TrainingData, list[str]]:
    """The data without captions of the bundled benchmark, and sha256 of each image, in order.

    ``say`` is told what was left out, as images are that can't be used; ``done``, how many are hashed.
    TrainingError if any of the benchmark's photos is there (the same bytes, or the same picture saved
    again in the same size), or so many of its captions that it can't be chance.
    """
    data, by_image, problems = hashed(data, use, done)
    if say is not None:
        tell(problems, say)
    kept = without_captions(data, use, say)
    return kept, [by_image[image] for image in kept.images]


def without_captions(data: TrainingData, use: Use, say: Say | None = None) -> TrainingData:
    """The data without captions of the bundled benchmark. TrainingError for more than chance gives."""
    known = benchmark_captions()
    found = {index for index, text in enumerate(data.texts) if caption_hash(text) in known}
    if len(found) > BY_CHANCE:
        raise TrainingError(
            f"{len(found)} texts are captions of the bundled benchmark, such as "
            f"{data.texts[min(found)]!r}, which must never be {use}. Leave them out."
        )
    if not found:
        return data
    kept = data.without(found)
    if say is not None:
        lost = len(data.images) - len(kept.images)
        say(
            f"Texts left out, since captions of the bundled benchmark must never be {use}: {len(found)}"
            + (f", and {lost} images that have no other text" if lost else "")
        )
    return kept


def hashed(
    data: TrainingData, use: Use, done: Done | None = None
) -> tuple[TrainingData, dict[ImageRef, str], list[Problem]]:
    """The data without images that can't be used, sha256 (hex) of each image left, and what was left out.

    TrainingError for a photo of the benchmark. Files that did not change since are not read again.
    """
    digests = dict(zip(data.images, _image_hashes(data.images, use, done), strict=True))
    flawed = {image: _FLAWS[digest] for image, digest in digests.items() if digest in _FLAWS}
    problems = [Problem(str(image), None, flaw) for image, flaw in flawed.items()]
    left = {image: digest for image, digest in digests.items() if image not in flawed}
    return (data.without_images({*flawed}) if flawed else data), left, problems


def _image_hashes(images: Sequence[ImageRef], use: Use, done: Done | None) -> list[str]:
    """Of an image that is left out, the one of ``_FLAWS``."""

    def make(part: range) -> Rows:
        chosen = images[part.start : part.stop]
        hashes: list[str] = []
        with ThreadPoolExecutor(8) as pool:
            for image, digest in zip(chosen, pool.map(_of_usable, chosen), strict=True):
                if digest not in _FLAWS and (digest in benchmark_images() or _same_picture(image)):
                    raise TrainingError(
                        f"{image} is a photo of the bundled benchmark, which must never be {use}: its score "
                        "would mean nothing any more. Use other data."
                    )
                hashes.append(digest)
                if done is not None:
                    done(part.start + len(hashes), len(images))
        return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)

    about = [identities(images), sorted(benchmark_images()), _FLAWS]
    rows = filled("hashes", about, len(images), _AT_ONCE, make)
    return [rows[index].tobytes().hex() for index in range(len(images))]


@cache
def benchmark_images() -> frozenset[str]:
    """sha256 (hex) of the bytes of every photo of the benchmark."""
    return frozenset(_sha256(path) for path in _photos())


@cache
def benchmark_captions() -> frozenset[str]:
    return frozenset(caption_hash(text) for text in photos.load().texts)


def caption_hash(text: str) -> str:
    """sha256 (hex) of a caption without what CLIP's tokenizer drops, and without a final stop."""
    return hashlib.sha256(text_key(text).rstrip(". ").encode()).hexdigest()


def manifest(data: TrainingData, hashes: Iterable[str]) -> str:
    """What a run was trained on, as lines ``image <sha256>`` and ``text <sha256>`` that can be searched."""
    lines = [f"image {digest}" for digest in sorted(set(hashes))]
    lines += sorted(f"text {caption_hash(text)}" for text in data.texts)
    return "\n".join(lines) + "\n"


def _same_picture(image: ImageRef) -> bool:
    with Image.open(image if isinstance(image, Path) else io.BytesIO(image.read())) as opened:
        size = opened.size
    alike = _photos_by_size().get(size, [])
    if not alike:
        return False
    pixels = np.asarray(load_image(image), np.float32)
    return any(np.abs(pixels - np.asarray(load_rgb(path))).mean() < SAME_PICTURE for path in alike)


@cache
def _photos_by_size() -> dict[tuple[int, int], list[Path]]:
    sizes: dict[tuple[int, int], list[Path]] = {}
    for path in _photos():
        sizes.setdefault(load_rgb(path).size, []).append(path)
    return sizes


def _photos() -> list[Path]:
    return sorted((PHOTOS / "images").iterdir())


def _sha256(image: ImageRef) -> str:
    return hashlib.sha256(bytes_of(image)).hexdigest()


def _of_usable(image: ImageRef) -> str:
    content = bytes_of(image)
    try:
        with Image.open(io.BytesIO(content)) as opened:
            short, long = sorted(opened.size)
            opened.draft("RGB", (1, 1))  # a JPEG at an eighth of its size: read to its end, but sooner
            load_rgb(opened)
    except Exception:  # broken files make Pillow's plugins raise anything
        return _BROKEN
    if long > THINNEST * short:
        return _THIN
    return hashlib.sha256(content).hexdigest()
