"""Data to train on, from any source: datasets, shards, folders of images, files of texts."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lpcvc_zoo import preprocess
from lpcvc_zoo.errors import ContractError, DatasetError, TrainingError
from lpcvc_zoo.retrieval import coco
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.files import IMAGE_SUFFIXES, read_json, read_utf8
from lpcvc_zoo.retrieval.records import Problem, RetrievalDataset, text_key
from lpcvc_zoo.training.recipe import Data, Source
from lpcvc_zoo.training.shards import Member, expand, read_shard

ImageRef = Path | Member
TRAIN_SPLIT, VALIDATION_SPLIT = "train+restval", "val"


@dataclass(frozen=True)
class TrainingData:
    """Images, a pool of texts, and the texts of each image (none, where it came without).

    No two texts differ only in what CLIP's tokenizer drops. ``problems``: what was odd in the files.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    positives: tuple[tuple[int, ...], ...]
    problems: tuple[Problem, ...] = ()

    def fingerprint(self) -> str:
        """sha256 (hex) over names and sizes of image files, texts and positives."""
        files = [(image.name, size_of(image)) for image in self.images]
        content = json.dumps([files, self.texts, self.positives])
        return hashlib.sha256(content.encode()).hexdigest()

    def part(self, chosen: Iterable[int]) -> TrainingData:
        """Only these images, and the texts that belong to them."""
        collector = _Collector()
        for index in chosen:
            collector.add(self.images[index], [self.texts[text] for text in self.positives[index]])
        return collector.data()

    def without(self, texts: set[int]) -> TrainingData:
        """Without these texts, and without the images that lose their last one."""
        collector = _Collector()
        for image, positives in zip(self.images, self.positives, strict=True):
            left = [self.texts[text] for text in positives if text not in texts]
            if left or not positives:
                collector.add(image, left)
        for index, text in enumerate(self.texts):
            if index not in texts:
                collector.text(text)
        return collector.data()

    def as_dataset(self, name: str) -> RetrievalDataset:
        """The same as a dataset that can be scored; a member of a shard goes under a path of its own."""
        paths = tuple(Path(str(image)) for image in self.images)
        return RetrievalDataset(name, paths, self.texts, self.positives)


@dataclass
class _Collector:
    images: dict[ImageRef, set[int]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def text(self, text: str) -> int:
        index = self.keys.setdefault(text_key(text), len(self.texts))
        if index == len(self.texts):
            self.texts.append(text)
        return index

    def add(self, image: ImageRef, texts: Iterable[str]) -> None:
        self.images.setdefault(image, set()).update(map(self.text, texts))

    def data(self) -> TrainingData:
        positives = tuple(tuple(sorted(texts)) for texts in self.images.values())
        return TrainingData(tuple(self.images), tuple(self.texts), positives, tuple(self.problems))


def read_training(data: Data, hold_out: float) -> tuple[TrainingData, TrainingData | None]:
    """What to train on, and what to validate on: its own source, else the share ``hold_out`` of the pairs.

    DatasetError for what can't be read; TrainingError where there is too little to hold something out.
    """
    collector = _Collector()
    for source in data.pairs:
        _add_pairs(collector, source, TRAIN_SPLIT)
    everything, problems = collector.data(), collector.problems
    validation: TrainingData | None = None
    if data.validation is not None:
        collector = _Collector()
        _add_pairs(collector, data.validation, VALIDATION_SPLIT)
        validation = collector.data()
    elif hold_out and everything.images:
        everything, validation = _held_out(everything, hold_out)
    collector = _Collector(problems=problems)
    for image, positives in zip(everything.images, everything.positives, strict=True):
        collector.add(image, [everything.texts[text] for text in positives])
    for source in data.images:
        for path in _folder_images(Path(source.path).expanduser()):
            collector.add(path, [])
    for source in data.texts:
        for line in read_utf8(Path(source.path).expanduser()).splitlines():
            if line.strip():
                collector.text(line.strip())
    return collector.data(), validation


def read_validation(source: Source) -> TrainingData:
    """One source as validation data."""
    collector = _Collector()
    _add_pairs(collector, source, VALIDATION_SPLIT)
    return collector.data()


def load_image(image: ImageRef) -> Image.Image:
    """The image in mode RGB, read as a contract reads it. ContractError where it can't be read."""
    if isinstance(image, Path):
        return preprocess.load_rgb(image)
    try:
        return preprocess.load_rgb(Image.open(io.BytesIO(image.read())))
    except (OSError, ContractError) as error:
        raise ContractError(
            "image.file", "a whole image that Pillow can read", f"{image} ({error})"
        ) from None


def size_of(image: ImageRef) -> int:
    try:
        return image.size if isinstance(image, Member) else image.stat().st_size
    except OSError as error:
        raise DatasetError(f"An image can't be read: {error}.") from None


def identities(images: Sequence[ImageRef]) -> list[tuple[str, int, int]]:
    """Path, size and time of change of each image, for keys of caches."""
    paths = [image if isinstance(image, Path) else image.archive for image in images]
    try:
        times = {path: path.stat().st_mtime_ns for path in set(paths)}
    except OSError as error:
        raise DatasetError(f"An image can't be read: {error}.") from None
    return [(str(image), size_of(image), times[path]) for image, path in zip(images, paths, strict=True)]


def bytes_of(image: ImageRef) -> bytes:
    try:
        return image.read() if isinstance(image, Member) else image.read_bytes()
    except OSError as error:
        raise DatasetError(f"An image can't be read: {error}.") from None


def _add_pairs(collector: _Collector, source: Source, default_split: str) -> None:
    path = Path(source.path).expanduser()
    if source.path.endswith(".tar") or (path.is_dir() and any(path.glob("*.tar"))):
        for shard in expand(source.path):
            for member, texts in read_shard(shard):
                collector.add(member, texts)
        return
    is_karpathy = path.suffix.lower() == ".json" and path.is_file() and coco.is_karpathy(read_json(path))
    splits: Sequence[str | None] = (
        (source.split or default_split).split("+") if is_karpathy else [source.split]
    )
    for split in splits:
        try:
            dataset = load_dataset(source.path, images=source.images, split=split)
        except DatasetError as error:
            # Flickr30k has no split "restval"; only a split that somebody asked for must be there
            if source.split is None and split == "restval" and "has no split" in str(error):
                continue
            raise
        for image, positives in zip(dataset.images, dataset.positives, strict=True):
            collector.add(image, [dataset.texts[text] for text in positives])
        collector.problems += dataset.problems


def _held_out(data: TrainingData, share: float) -> tuple[TrainingData, TrainingData]:
    """Two parts that share no image, the same ones every time.

    Which image goes where hangs on its name and size alone, so more data moves no image to the other side.
    """
    by_hash = sorted(
        range(len(data.images)),
        key=lambda index: hashlib.sha256(
            f"{data.images[index].name}|{size_of(data.images[index])}".encode()
        ).digest(),
    )
    count = round(share * len(by_hash))
    held = sorted(by_hash[:count])
    validation = data.part(held)
    if len(validation.texts) <= 1 or count == len(by_hash):
        raise TrainingError(
            f"{len(by_hash)} images are too few to hold out {share:.0%} of them for validation. "
            "Name a validation set, or set data.hold_out to a larger share, or to 0 to go without."
        )
    return data.part(np.setdiff1d(np.arange(len(by_hash)), held).tolist()), validation


def _folder_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder of images.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DatasetError(f"{folder} holds no image.")
    return found
