"""Batches cut into the single samples that a compiled tower takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.base import Array

Specs = Mapping[str, tuple[tuple[Any, ...], str]]  # of each input: compiled shape and numpy dtype


def split(specs: Specs, inputs: Mapping[str, Array], what: str) -> list[dict[str, Array]]:
    """Samples of the compiled shapes, in order.

    Each input has the compiled shape, or a longer batch axis: the one that is 1 in the compiled shape and
    differs here (axis 1 of ``[2, N, 77]``). TargetError names a wrong input, shape or dtype of ``what``.
    """
    if set(inputs) != set(specs):
        raise TargetError(f"{what}: expected inputs {sorted(specs)}, got {sorted(inputs)}.")
    sizes: dict[str, int] = {}
    columns: dict[str, list[Array]] = {}
    for name, (shape, dtype) in specs.items():
        array = np.asarray(inputs[name])
        if array.dtype != dtype:
            raise TargetError(f"{what}, input {name!r}: expected dtype {dtype}, got {array.dtype}.")
        columns[name] = _cut(array, shape, f"{what}, input {name!r}")
        sizes[name] = len(columns[name])
    if len(set(sizes.values())) != 1:
        raise TargetError(f"{what}: inputs of one batch size expected, got {sizes}.")
    count = next(iter(sizes.values()))
    return [{name: column[index] for name, column in columns.items()} for index in range(count)]


def _cut(array: Array, shape: tuple[Any, ...], what: str) -> list[Array]:
    """Cut an array into samples of the compiled shape, along the one axis where the two differ."""
    problem = TargetError(
        f"{what}: expected shape {list(shape)} or a longer batch axis, got {list(array.shape)}."
    )
    if array.ndim != len(shape) or array.size == 0:
        raise problem
    pairs = enumerate(zip(array.shape, shape, strict=True))
    differing = [axis for axis, (have, want) in pairs if isinstance(want, int) and have != want]
    if not differing:
        return [np.ascontiguousarray(array)]
    if len(differing) > 1 or shape[differing[0]] != 1:
        raise problem
    axis = differing[0]
    parts = np.split(array, array.shape[axis], axis=axis)
    return [np.ascontiguousarray(part) for part in parts]
