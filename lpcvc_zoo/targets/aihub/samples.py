"""Batches as the service takes and gives them: lists of samples, each of exactly the compiled shape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.source import Specs
from lpcvc_zoo.targets.base import Array
from lpcvc_zoo.targets.samples import columns, digest

Columns = dict[str, list[Any]]  # name -> one array a sample


def split(specs: Specs, inputs: Mapping[str, Array], what: str, *, narrow: bool) -> Columns:
    """Cut a batch into samples of the compiled shapes, as ``targets.samples.columns``.

    ``narrow``: the tower was compiled with 64-bit integers cut to 32 bits, so they are given as such.
    """
    found: Columns = columns(specs, inputs, what)
    for name, column in found.items():
        if narrow and specs[name][1] == "int64":
            found[name] = [_narrowed(array, f"{what}, input {name!r}") for array in column]
    return found


def chunks(samples: Columns, most_bytes: int) -> Iterator[Columns]:
    """The samples in their order, in parts of at most ``most_bytes`` (one sample at least)."""
    names = list(samples)
    count = len(samples[names[0]])
    sample_bytes = sum(samples[name][0].nbytes for name in names)
    step = max(1, most_bytes // max(1, sample_bytes))
    for begin in range(0, count, step):
        yield {name: samples[name][begin : begin + step] for name in names}


def digests(samples: Columns) -> list[str]:
    """A hash of every sample."""
    return [digest(dict(zip(samples, sample, strict=True))) for sample in zip(*samples.values(), strict=True)]


def dataset_key(samples: Columns) -> str:
    """A hash of all samples in their order."""
    return hashlib.sha256("\n".join(digests(samples)).encode()).hexdigest()


def joined(
    parts: Sequence[Mapping[str, Sequence[Any]]], samples: Sequence[int], distinct: int, what: str
) -> dict[str, Array]:
    """Outputs of all parts, stacked along their first axis in the order of the samples.

    TargetError where outputs are missing, hold NaN or infinity, or are the same for different samples.
    """
    names = list(parts[0])
    for part, expected in zip(parts, samples, strict=True):
        sizes = {name: len(values) for name, values in part.items()}
        if list(part) != names or not names or set(sizes.values()) != {expected}:
            raise TargetError(f"{what}: expected {expected} outputs of each of {names}, got {sizes}.")
    outputs: dict[str, Array] = {}
    for name in names:
        rows = [np.asarray(value) for part in parts for value in part[name]]
        if len({row.shape for row in rows}) > 1 or rows[0].ndim == 0:
            shapes = sorted({row.shape for row in rows})
            raise TargetError(f"{what}: output {name!r} has shapes {shapes}; expected one shape [1, D].")
        _check(rows, distinct, f"{what}: output {name!r}")
        outputs[name] = np.concatenate(rows)
    return outputs


def _check(rows: list[Any], distinct: int, what: str) -> None:
    dead = "Computed in half precision or as integers, the tower broke: lint it, or try another precision."
    wrong = [place for place, row in enumerate(rows) if row.dtype.kind == "f" and not np.isfinite(row).all()]
    if wrong:
        raise TargetError(
            f"{what} is NaN or infinite in {len(wrong)} of {len(rows)} samples, first in number {wrong[0]}. "
            f"{dead}"
        )
    flat = [place for place, row in enumerate(rows) if row.size > 1 and np.ptp(row) == 0]
    if flat:
        raise TargetError(
            f"{what} is one number all over ({rows[flat[0]].flat[0]}) in {len(flat)} of {len(rows)} samples, "
            f"first in number {flat[0]}. {dead}"
        )
    if distinct > 1 and all(np.array_equal(row, rows[0]) for row in rows):
        raise TargetError(f"{what} is the same for all {len(rows)} samples, which differ. {dead}")


def _narrowed(array: Array, what: str) -> Array:
    narrow = array.astype(np.int32)
    if not np.array_equal(narrow, array):
        raise TargetError(f"{what}: compiled with 32-bit integers, but some numbers need 64 bits.")
    return narrow
