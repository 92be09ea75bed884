"""Rows of one shape in memory-mapped .npy files, each written whole: a killed run loses at most one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpcvc_zoo.files import cache_dir, written_whole

Rows = NDArray[Any]


class Parts:
    """``count`` rows, ``size`` in a file. Each process maps the files by itself, on first use."""

    def __init__(self, folder: Path, count: int, size: int) -> None:
        self.folder, self.count, self.size = folder, count, size
        self._open: dict[int, Rows] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Rows:
        part, row = divmod(int(index), self.size)
        if part not in self._open:
            self._open[part] = np.load(self.file(part), mmap_mode="r")
        return np.array(self._open[part][row])

    def rows(self, indices: Sequence[int]) -> Rows:
        """A copy of these rows, stacked."""
        return np.stack([self[index] for index in indices])

    def file(self, part: int) -> Path:
        return self.folder / f"{part:05d}.npy"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def filled(kind: str, about: Any, count: int, size: int, make: Callable[[range], Rows]) -> Parts:
    """The rows that ``make`` gives for ranges of ``count``, from the cache where they are there already.

    ``about`` (a JSON value) must tell apart all that gives other rows; ``kind`` names the cache's folder.
    """
    key = hashlib.sha256(json.dumps([about, count, size]).encode()).hexdigest()[:32]
    parts = Parts(cache_dir() / "training" / kind / key, count, size)
    for part in range(math.ceil(count / size)):
        path = parts.file(part)
        if not path.is_file():
            rows = make(range(part * size, min((part + 1) * size, count)))
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows)
    return parts
