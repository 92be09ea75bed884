"""Data to train on, from any source: datasets, shards, folders of images, files of texts."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lpcvc_zoo import preprocess
from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.files import given_path
from lpcvc_zoo.retrieval import captions, coco
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.files import IMAGE_SUFFIXES, read_json, read_utf8
from lpcvc_zoo.retrieval.lpcvc_csv import IMAGE_LIST
from lpcvc_zoo.retrieval.records import Problem, RetrievalDataset, summary, text_flaw, text_key
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

    @property
    def tells_models_apart(self) -> bool:
        """Whether some text is wrong for some image, so that there is something to be found."""
        return any(len(positives) < len(self.texts) for positives in self.positives)

    def fingerprint(self, digests: Mapping[ImageRef, str]) -> str:
        """sha256 (hex) over names and contents (``digests``) of the images, texts and positives."""
        files = [(image.name, digests[image]) for image in self.images]
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

    def without_images(self, images: set[ImageRef]) -> TrainingData:
        """Without these images, and without the texts that belong to none but them."""
        collector = _Collector()
        lost = set[int]()
        for image, positives in zip(self.images, self.positives, strict=True):
            if image in images:
                lost.update(positives)
            else:
                collector.add(image, [self.texts[text] for text in positives])
        for index, text in enumerate(self.texts):
            if index not in lost:
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


def read_training(data: Data) -> tuple[TrainingData, TrainingData | None]:
    """All there is to train on, and the source to validate on, where one is named.

    DatasetError for what can't be read.
    """
    collector = _Collector()
    for source in data.pairs:
        _add_pairs(collector, source, TRAIN_SPLIT)
    for source in data.images:
        for path in _folder_images(given_path(source.path)):
            collector.add(path, [])
    for source in data.texts:
        for line in read_utf8(given_path(source.path)).splitlines():
            if not text_flaw(line):
                collector.text(line.strip())
    return collector.data(), None if data.validation is None else read_validation(data.validation)


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


def identities(images: Sequence[ImageRef]) -> list[tuple[str, str, int, int]]:
    """Absolute path, name, size and time of change of each image, for keys of caches."""
    paths = [image if isinstance(image, Path) else image.archive for image in images]
    try:
        times = {path: path.stat().st_mtime_ns for path in set(paths)}
    except OSError as error:
        raise DatasetError(f"An image can't be read: {error}.") from None
    return [
        (str(path.absolute()), image.name, size_of(image), times[path])
        for image, path in zip(images, paths, strict=True)
    ]


def bytes_of(image: ImageRef) -> bytes:
    try:
        return image.read() if isinstance(image, Member) else image.read_bytes()
    except OSError as error:
        raise DatasetError(f"An image can't be read: {error}.") from None


def _add_pairs(collector: _Collector, source: Source, default_split: str) -> None:
    path = given_path(source.path)
    if source.path.endswith(".tar") or (_tells_nothing_of_images(path) and any(path.glob("*.tar"))):
        _add_shards(collector, source.path)
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


def _tells_nothing_of_images(path: Path) -> bool:
    return path.is_dir() and not any((path / name).is_file() for name in (*captions.FILES, IMAGE_LIST))


def _add_shards(collector: _Collector, pattern: str) -> None:
    count, problems = 0, []
    for shard in expand(pattern):
        samples, found = read_shard(shard)
        count += len(samples)
        problems += found
        for member, texts in samples:
            collector.add(member, texts)
    if not count:
        raise DatasetError(f"{pattern}: no image that has a text was found. {summary(problems)}.")
    collector.problems += problems


def _folder_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder of images.")
    files = (Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names)
    found = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise DatasetError(f"{folder} holds no image.")
    return found
