"""Captions in COCO's own JSON (``captions_val2017.json``) and in Karpathy's (``dataset_coco.json``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import DatasetError
from lpcvc_zoo.retrieval.files import ImageFinder
from lpcvc_zoo.retrieval.records import DatasetBuilder, text_flaw

SPLIT = "test"


def is_coco(document: Any) -> bool:
    return isinstance(document, dict) and "images" in document and "annotations" in document


def is_karpathy(document: Any) -> bool:
    return isinstance(document, dict) and "images" in document and "annotations" not in document


def coco_folders(path: Path) -> list[Path]:
    """Where the images of ``coco/annotations/captions_val2017.json`` usually lie: ``coco/val2017``."""
    part = path.stem.removeprefix("captions_")
    return [folder for parent in (path.parent, path.parent.parent) for folder in (parent / part, parent)]


def read_coco(path: Path, document: Any, finder: ImageFinder, builder: DatasetBuilder) -> None:
    """Read ``images`` (id, file_name) and ``annotations`` (image_id, caption).

    Warnings, with the place in the list: entries of another form, images that are not on disk, one id given
    to two images, annotations of unknown images, blank captions. Notes: images without a caption.
    """
    found: dict[Any, tuple[int, Path | None]] = {}
    for row, item in _items(document, "images", path):
        identity, name = item.get("id"), item.get("file_name")
        if not isinstance(identity, int | str) or not isinstance(name, str):
            builder.warn(path, row, "image without an 'id' or a 'file_name'; skipped")
            continue
        if identity in found:
            builder.warn(path, row, f"image id {identity!r} was given to another image before; skipped")
            continue
        found[identity] = (row, _find(finder, [name], path, row, builder))
    captions: dict[Any, list[str]] = {identity: [] for identity in found}
    for row, item in _items(document, "annotations", path):
        identity, text = item.get("image_id"), item.get("caption")
        if not isinstance(text, str) or (flaw := text_flaw(text)):
            what = f"with {flaw}" if isinstance(text, str) else "without a 'caption'"
            builder.warn(path, row, f"annotation {what}; skipped")
        elif not isinstance(identity, int | str) or identity not in captions:
            builder.warn(path, row, f"annotation of the unknown image id {identity!r}; skipped")
        else:
            captions[identity].append(text)
    for identity, (row, image) in found.items():
        if image is None:
            continue
        if captions[identity]:
            builder.link(image, [builder.text(text) for text in captions[identity]])
        else:
            builder.note(path, row, f"{image.name!r} has no caption and is left out")


def read_karpathy(
    path: Path, document: Any, split: str, finder: ImageFinder, builder: DatasetBuilder
) -> None:
    """Read the ``images`` of one split: ``filename`` (under ``filepath`` where given), ``sentences`` (raw).

    DatasetError names the splits there are. Warnings, with the place in the list: entries of another form,
    images that are not on disk, blank or missing sentences.
    """
    splits: Counter[str] = Counter()
    for row, item in _items(document, "images", path):
        splits[str(item.get("split"))] += 1
        if item.get("split") != split:
            continue
        name, folder, sentences = item.get("filename"), item.get("filepath"), item.get("sentences")
        if not isinstance(name, str) or not isinstance(sentences, list):
            builder.warn(path, row, "image without a 'filename' or a list of 'sentences'; skipped")
            continue
        texts = [sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences]
        good = [text for text in texts if isinstance(text, str) and not text_flaw(text)]
        if len(good) < len(texts) or not good:
            builder.warn(
                path, row, f"{len(good)} of {len(texts)} sentences of {name!r} have a text that can be used"
            )
        names = [f"{folder}/{name}", name] if isinstance(folder, str) and folder else [name]
        image = _find(finder, names, path, row, builder)
        if image is not None and good:
            builder.link(image, [builder.text(text) for text in good])
    if split not in splits:
        there = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items())) or "none"
        raise DatasetError(f"{path} has no split {split!r}. Splits there, with their images: {there}.")


def _items(document: Any, key: str, path: Path) -> Sequence[tuple[int, dict[str, Any]]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DatasetError(f"{path}: expected {key!r} to be a list of objects.")
    return list(enumerate(items, start=1))


def _find(
    finder: ImageFinder, names: Sequence[str], path: Path, row: int, builder: DatasetBuilder
) -> Path | None:
    """The image under the first of these names that is on disk; a warning where there is none."""
    problem = ""
    for name in names:
        try:
            return finder.find(name)
        except LookupError as error:
            problem = str(error)
    builder.warn(path, row, f"{problem}; its captions are dropped")
    return None
