"""What the teachers say of all images and texts: asked once, kept in memory-mapped files, unless live."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import given_path, sha256_of
from lpcvc_zoo.model import DualEncoder, unit_length
from lpcvc_zoo.registry import build, chosen_weights, get_entry
from lpcvc_zoo.retrieval.records import text_key
from lpcvc_zoo.training.live import LiveTeacher
from lpcvc_zoo.training.losses import Embedded
from lpcvc_zoo.training.parts import Parts, Rows, filled
from lpcvc_zoo.training.pixels import Done, prepared
from lpcvc_zoo.training.recipe import Recipe, Teacher
from lpcvc_zoo.training.sources import ImageRef, identities
from lpcvc_zoo.weights.identity import identity_of

PART = 4096
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Lesson:
    """One teacher's embeddings of all that is trained on, unit length, for the towers that a loss needs.

    ``live``: what to ask about a step's images, in place of ``images``.
    """

    images: Parts | None
    texts: Parts | None
    live: LiveTeacher | None = None

    @property
    def dim(self) -> int:
        if self.live is not None:
            return self.live.dim
        parts = self.images if self.images is not None else self.texts
        assert parts is not None
        return int(parts[0].shape[0])

    def of(self, images: Tensor | None, texts: Tensor | None) -> Embedded:
        """Embeddings for places of images ``[B]`` and texts ``[B, k]``, on the device of those."""
        said = Embedded()
        if self.images is not None and images is not None:
            said.image = torch.from_numpy(self.images.rows(images.tolist())).to(images.device)
        if self.texts is not None and texts is not None:
            rows = torch.from_numpy(self.texts.rows(texts.flatten().tolist())).to(texts.device)
            said.text = rows.view(*texts.shape, -1)
        return said


def lessons(
    recipe: Recipe,
    contract: Contract,
    images: Sequence[ImageRef],
    texts: Sequence[str],
    *,
    device: torch.device,
    workers: int,
    done: Done | None = None,
) -> dict[str, Lesson]:
    """Each teacher's embeddings by its name.

    TrainingError for a teacher without weights, and for given embeddings that lack an image or a text.
    """
    taught: dict[str, Lesson] = {}
    for teacher in recipe.teachers:
        needed = {tower for loss in recipe.losses if loss.teacher == teacher.name for tower in loss.needs}
        ask = _Entry(teacher, contract, device, workers, done) if teacher.model else _Given(teacher)
        live = None
        if teacher.live and "image" in needed:
            assert isinstance(ask, _Entry)
            live = LiveTeacher(ask.model, cached=recipe.data.cache)
        taught[teacher.name] = Lesson(
            ask.images(images) if "image" in needed and live is None else None,
            ask.texts(texts) if "text" in needed else None,
            live,
        )
    return taught


class _Entry:
    """A teacher that is a model of the zoo, built only if something is not in the cache yet."""

    def __init__(
        self, teacher: Teacher, contract: Contract, device: torch.device, workers: int, done: Done | None
    ) -> None:
        assert teacher.model is not None
        self.name, self.choice = teacher.model, chosen_weights(teacher.model, teacher.pretrained or False)
        if self.choice is False:
            raise TrainingError(
                f"Teacher {teacher.name!r} has no weights: an untrained model teaches nothing. Name a "
                f"checkpoint: model = {teacher.model + '.TAG'!r}, or pretrained = a tag or a path."
            )
        self.contract, self.device, self.workers, self.done = contract, device, workers, done
        weights = identity_of(get_entry(teacher.model), self.choice)
        self.about = [teacher.model.partition(".")[0], weights, contract.model_dump(mode="json")]
        self._built: DualEncoder | None = None

    @property
    def model(self) -> DualEncoder:
        if self._built is None:
            built = build(self.name, pretrained=self.choice, contract=self.contract)
            self._built = built.to(self.device)
        return self._built

    def images(self, images: Sequence[ImageRef]) -> Parts:
        @torch.inference_mode()
        def make(part: range) -> Rows:
            made: list[Rows] = []
            for batch in prepared(images[part.start : part.stop], self.contract, self.workers):
                made.append(self.model.encode_image(batch.to(self.device)).float().cpu().numpy())
                if self.done is not None:
                    self.done(part.start + sum(map(len, made)), len(images))
            return np.concatenate(made)

        return filled("teachers", [self.about, identities(images)], len(images), PART, make)

    def texts(self, texts: Sequence[str]) -> Parts:
        @torch.inference_mode()
        def make(part: range) -> Rows:
            made: list[Rows] = []
            for begin in range(part.start, part.stop, _TEXTS_AT_ONCE):
                chunk = texts[begin : min(begin + _TEXTS_AT_ONCE, part.stop)]
                prepared_texts = torch.from_numpy(self.contract.prepare_text(chunk)).to(self.device)
                made.append(self.model.encode_text(prepared_texts).float().cpu().numpy())
            return np.concatenate(made)

        return filled("teachers", [self.about, _digest(texts)], len(texts), PART, make)


class _Given:
    """A teacher that is a file of embeddings, matched by file name and by text."""

    def __init__(self, teacher: Teacher) -> None:
        assert teacher.embeddings is not None
        self.name, self.path = teacher.name, given_path(teacher.embeddings)
        try:
            self.sha256 = sha256_of(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                self.arrays: Mapping[str, Any] = dict(file)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self.path} is no file of embeddings that can be read ({error}). Expected an .npz as "
                "`lpcvc-zoo evaluate --save-embeddings` writes it."
            ) from None

    def images(self, images: Sequence[ImageRef]) -> Parts:
        known = {str(name): row for row, name in enumerate(self._array("image_files", "image"))}
        rows = rows_by_path(known, images)
        missing = [str(image) for image, row in zip(images, rows, strict=True) if row is None]
        taught: dict[int, ImageRef] = {}
        for image, row in zip(images, rows, strict=True):
            if row is not None and taught.setdefault(row, image) != image:
                raise TrainingError(
                    f"Teacher {self.name!r}: {self.path} has one embedding whose name both {taught[row]} and "
                    f"{image} have. Embed the images from the folder that holds them all."
                )
        return self._chosen("image", rows, missing, len(images))

    def texts(self, texts: Sequence[str]) -> Parts:
        known = {text_key(str(text)): row for row, text in enumerate(self._array("texts", "text"))}
        rows = [known.get(text_key(text)) for text in texts]
        missing = [repr(text) for text, row in zip(texts, rows, strict=True) if row is None]
        return self._chosen("text", rows, missing, len(texts))

    def _chosen(self, tower: Tower, rows: Sequence[int | None], missing: Sequence[str], count: int) -> Parts:
        if missing:
            raise TrainingError(
                f"Teacher {self.name!r}: {self.path} has no embedding of {len(missing)} of {count} {tower}s, "
                f"such as {missing[0]}. Embed those too, or leave them out of the data."
            )
        embeddings = self._array(f"{tower}_embeddings", tower)
        places = np.array(rows)

        def make(part: range) -> Rows:
            chosen = torch.from_numpy(embeddings[places[part.start : part.stop]].astype(np.float32))
            result: Rows = unit_length(chosen).numpy()
            return result

        about = [self.sha256, tower, hashlib.sha256(places.tobytes()).hexdigest()]
        return filled("teachers", about, count, PART, make)

    def _array(self, name: str, tower: Tower) -> Any:
        if name not in self.arrays:
            raise TrainingError(
                f"Teacher {self.name!r}: {self.path} holds no {name!r}, which distilling the {tower} tower "
                f"needs. It has: {', '.join(self.arrays)}."
            )
        return self.arrays[name]


def rows_by_path(known: Mapping[str, int], images: Sequence[ImageRef]) -> list[int | None]:
    """The row of each image: of the names that end its path, the longest one's; else by a file name that is
    there once, else None."""
    short: dict[str, int | None] = {}
    for name, row in known.items():
        short[Path(name).name] = None if Path(name).name in short else row
    rows = []
    for image in images:
        parts = (image.absolute() if isinstance(image, Path) else Path(image.name)).parts
        ends = ("/".join(parts[begin:]) for begin in range(len(parts)))
        rows.append(next((known[end] for end in ends if end in known), short.get(parts[-1])))
    return rows


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
