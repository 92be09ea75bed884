"""Webdataset shards, read in place: plain tar files whose members with one stem make one sample.

The shards are indexed once (the index is cached), and members are then read by their offset. That keeps any
order of samples possible and a resumed run exact, which a stream (as the library ``webdataset`` gives) can't
promise.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import DatasetError
from lpcvc_zoo.files import cache_dir, given_path, write_text
from lpcvc_zoo.retrieval.files import IMAGE_SUFFIXES
from lpcvc_zoo.retrieval.records import Problem, text_flaw

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
TEXT_KEYS = ("caption", "captions", "text", "texts")
_INDEX = 3  # form of a cached index; the second had texts with flaws
Parts = dict[str, "Member"]  # files of one sample by their suffix


@dataclass(frozen=True)
class Member:
    """A file inside a tar archive, by where its bytes are."""

    archive: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"


def expand(pattern: str) -> list[Path]:
    """Shards by a path, a folder, a glob pattern, or a range such as ``train-{000..099}.tar``, sorted."""
    path = given_path(pattern)
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
    elif match := RANGE.search(pattern):
        first, last = match[1], match[2]
        names = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        found = [given_path(pattern[: match.start()] + name + pattern[match.end() :]) for name in names]
    elif any(sign in pattern for sign in "*?["):
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    else:
        found = [path]
    missing = [shard for shard in found if not shard.is_file()]
    if missing or not found:
        raise DatasetError(f"{pattern}: no shard {missing[0] if missing else 'matches'}.")
    return found


def read_shard(shard: Path) -> tuple[list[tuple[Member, list[str]]], list[Problem]]:
    """(image, texts) of every sample that has both, and what the others lack.

    Texts are those of ``.txt`` (a line each) or ``.json``. From the cache where a shard of this path, size
    and time of change was read before.
    """
    try:
        facts = shard.stat()
    except OSError as error:
        raise DatasetError(f"{shard} can't be read: {error}.") from None
    form = [_INDEX, TEXT_KEYS, sorted(IMAGE_SUFFIXES)]
    about = [form, str(shard.resolve()), facts.st_size, facts.st_mtime_ns]
    key = sha256(json.dumps(about).encode()).hexdigest()[:32]
    index = cache_dir() / "training" / "shards" / f"{key}.json"
    if not index.is_file():
        write_text(index, json.dumps(_indexed(shard)))
    rows, problems = json.loads(index.read_text(encoding="utf-8"))
    samples = [(Member(shard, name, offset, size), texts) for name, offset, size, texts in rows]
    return samples, [Problem(shard.name, None, message) for message in problems]


def _indexed(shard: Path) -> tuple[list[tuple[str, int, int, list[str]]], list[str]]:
    """Name, offset, size and texts of each image that has some; a message for each thing that is lacking."""
    samples: dict[str, Parts] = {}
    try:
        with tarfile.open(shard, "r:") as archive:  # compressed archives have no offsets
            for item in archive:
                if item.isfile():
                    stem, _, suffix = item.name.rpartition("/")[2].partition(".")
                    key = f"{item.name.rpartition('/')[0]}/{stem}"
                    member = Member(shard, item.name, item.offset_data, item.size)
                    samples.setdefault(key, {})[f".{suffix.lower()}"] = member
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(f"{shard} is no plain tar archive that can be read: {error}.") from None
    rows, imageless, textless = [], [], []
    for parts in samples.values():
        image = next((member for suffix, member in parts.items() if suffix in IMAGE_SUFFIXES), None)
        if image is None:
            imageless.append(parts)
        elif texts := _texts(parts):
            rows.append((image.name, image.offset, image.size, texts))
        else:
            textless.append(parts)
    wanted = {
        f"image ({', '.join(sorted(IMAGE_SUFFIXES))})": imageless,
        f"text (.txt, or .json with {', '.join(TEXT_KEYS)})": textless,
    }
    return rows, [_lack(what, which, len(samples)) for what, which in wanted.items() if which]


def _lack(what: str, samples: Sequence[Parts], total: int) -> str:
    """How many samples have none, and what the first of them has."""
    first = samples[0]
    name = next(iter(first.values())).name
    has = ", ".join(first)
    try:
        facts = json.loads(first[".json"].read())
        has += f" (.json with the keys {', '.join(facts)})" if isinstance(facts, dict) else ""
    except (KeyError, ValueError):
        pass  # there is none, or none that can be read
    return f"{len(samples)} of {total} samples have no {what}, such as that of {name}, which has {has}"


def _texts(parts: Parts) -> list[str]:
    try:
        if ".txt" in parts:
            texts = parts[".txt"].read().decode().splitlines()
        elif ".json" in parts:
            facts = json.loads(parts[".json"].read())
            given: Any = next((facts[key] for key in TEXT_KEYS if key in facts), [])
            texts = [given] if isinstance(given, str) else list(given)
        else:
            texts = []
    except (ValueError, TypeError):
        texts = []
    return [text.strip() for text in texts if isinstance(text, str) and not text_flaw(text)]
