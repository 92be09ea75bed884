"""A retrieval dataset, the problems found while reading it, and the builder that every reader shares."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lpcvc_zoo.errors import DatasetError

SPECIAL = ("<|startoftext|>", "<|endoftext|>")  # CLIP's tokenizer adds both itself
_HALF = re.compile("[\ud800-\udfff]")
_SHOWN = 5  # problems quoted in one message


@dataclass(frozen=True)
class Problem:
    """Something odd in a dataset's files. A warning changed what is scored; a note is for information.

    ``row``: the line in a CSV file (the header is line 1), the element in a JSON list (from 1), or None.
    """

    file: str
    row: int | None
    message: str
    level: Literal["warning", "note"] = "warning"

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.message}"


@dataclass(frozen=True)
class RetrievalDataset:
    """Images, a pool of texts, and which texts belong to which image.

    ``positives[i]`` holds the indices in ``texts`` of the texts of ``images[i]``, rising, at least one. A
    text may belong to several images or to none (then it is only a distractor). No two texts differ only in
    what CLIP's tokenizer drops (see ``text_key``). DatasetError where any of this does not hold.
    ``note`` says where the data comes from and what a score on it does not show.
    """

    name: str
    images: tuple[Path, ...]
    texts: tuple[str, ...]
    positives: tuple[tuple[int, ...], ...]
    licence: str = "unknown"
    note: str = ""
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        if not self.images or not self.texts:
            raise DatasetError(
                f"{self.name}: {len(self.images)} images and {len(self.texts)} texts; "
                "expected at least one each."
            )
        if len(self.positives) != len(self.images):
            raise DatasetError(
                f"{self.name}: positives for {len(self.positives)} images, but {len(self.images)} images."
            )
        if len(set(self.images)) != len(self.images):
            raise DatasetError(f"{self.name}: the same image is listed twice; merge its texts.")
        if len({text_key(text) for text in self.texts}) != len(self.texts):
            raise DatasetError(
                f"{self.name}: two texts differ at most in case and spaces, which CLIP's tokenizer drops; "
                "merge them."
            )
        for image, positives in zip(self.images, self.positives, strict=True):
            valid = all(0 <= text < len(self.texts) for text in positives)
            if not positives or not valid or list(positives) != sorted(set(positives)):
                raise DatasetError(
                    f"{self.name}: {image.name} has the text indices {list(positives)}; expected at least "
                    f"one, rising, each from 0 to {len(self.texts) - 1}."
                )

    @property
    def links(self) -> int:
        """How many (image, text) pairs belong together."""
        return sum(map(len, self.positives))

    def part(self, name: str, places: Iterable[int], note: str = "") -> RetrievalDataset:
        """The images at these places, in this order, with their texts alone."""
        kept = list(places)
        texts = sorted({text for place in kept for text in self.positives[place]})
        index = {text: place for place, text in enumerate(texts)}
        return replace(
            self,
            name=name,
            images=tuple(self.images[place] for place in kept),
            texts=tuple(self.texts[text] for text in texts),
            positives=tuple(tuple(index[text] for text in self.positives[place]) for place in kept),
            note=" ".join(filter(None, (self.note, note))),
        )

    def spread(self, count: int) -> RetrievalDataset:
        """``count`` images spread evenly, with their texts alone: an easier set, and named another one."""
        total = len(self.images)
        if count >= total:
            return self
        places = (index * total // count for index in range(count))
        return self.part(
            f"{self.name}, {count} of {total}", places, "A part of it, with fewer texts to confuse."
        )

    def fingerprint(self) -> str:
        """sha256 (hex) over what changes a score: image file names and sizes, texts, positives.

        The images' bytes are not read, since that is slow on large sets: a picture replaced by another of
        the same name and size goes unnoticed. Folders don't count, so a moved dataset keeps its fingerprint.
        """
        try:
            files = [(path.name, path.stat().st_size) for path in self.images]
        except OSError as error:
            raise DatasetError(f"{self.name}: an image can't be read any more: {error}") from None
        content = json.dumps([files, self.texts, self.positives], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()


def text_key(text: str) -> str:
    """Equal for texts that differ only in what CLIP's tokenizer drops: case, runs of spaces, Unicode form."""
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def text_flaw(text: str) -> str:
    """Why a caption can't be given to CLIP's tokenizer, as what it is; empty where it can."""
    if not text_key(text):
        return "a blank caption"
    if _HALF.search(text):
        return "a caption with half a character (a lone surrogate)"
    if special := next((token for token in SPECIAL if token in text), ""):
        return f"a caption with {special}, which would end or begin it"
    return ""


class DatasetBuilder:
    """Collects images, texts and links in the order they are met, and the problems on the way.

    Texts with the same ``text_key`` become one text of the pool (the first spelling stays), positive for
    every image that has either: a model can't rank one before the other, so either must count. Scores on
    sets with repeated captions, such as COCO, therefore differ a little from those that count copies.
    """

    def __init__(self, name: str, *, strict: bool = False) -> None:
        self.name, self.strict = name, strict
        self.problems: list[Problem] = []
        self._texts: dict[str, int] = {}
        self._spellings: list[str] = []
        self._links: dict[Path, set[int]] = {}

    def warn(self, file: Path, row: int | None, message: str) -> None:
        self.problems.append(Problem(file.name, row, message))

    def note(self, file: Path, row: int | None, message: str) -> None:
        self.problems.append(Problem(file.name, row, message, "note"))

    def text(self, text: str) -> int:
        """The text's index in the pool, where it is put unless the same text is there already."""
        index = self._texts.setdefault(text_key(text), len(self._spellings))
        if index == len(self._spellings):
            self._spellings.append(text)
        return index

    def key_at(self, index: int) -> str:
        return text_key(self._spellings[index])

    def has(self, image: Path) -> bool:
        return image in self._links

    def link(self, image: Path, texts: Iterable[int]) -> None:
        self._links.setdefault(image, set()).update(texts)

    def build(
        self, *, licence: str = "unknown", note: str = "", looked_in: Iterable[Path]
    ) -> RetrievalDataset:
        """The dataset. DatasetError if no image with a text is left, or under ``strict`` on any warning."""
        warnings = [problem for problem in self.problems if problem.level == "warning"]
        if self.strict and warnings:
            raise DatasetError(f"{self.name}: {summary(warnings)}")
        if not self._links:
            places = ", ".join(str(place) for place in looked_in)
            reasons = f" {summary(warnings)}" if warnings else ""
            raise DatasetError(
                f"{self.name}: no image that has a text was found. "
                f"Images were looked for in {places}.{reasons}"
            )
        return RetrievalDataset(
            name=self.name,
            images=tuple(self._links),
            texts=tuple(self._spellings),
            positives=tuple(tuple(sorted(texts)) for texts in self._links.values()),
            licence=licence,
            note=note,
            problems=tuple(self.problems),
        )


def summary(problems: Iterable[Problem]) -> str:
    """The first few problems and how many there are, as one sentence."""
    listed = list(problems)
    shown = "; ".join(map(str, listed[:_SHOWN]))
    rest = len(listed) - _SHOWN
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    return f"{count}: {shown}{f'; and {rest} more' if rest > 0 else ''}"
