"""Batches cut into the single samples that a compiled tower takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.base import Array

Specs = Mapping[str, tuple[tuple[Any, ...], str]]  # of each input: compiled shape and numpy dtype


def split(specs: Specs, inputs: Mapping[str, Array], what: str) -> list[dict[str, Array]]:
    """Samples of the compiled shapes, in order; as ``columns``."""
    found = columns(specs, inputs, what)
    return [dict(zip(found, sample, strict=True)) for sample in zip(*found.values(), strict=True)]


def columns(specs: Specs, inputs: Mapping[str, Array], what: str) -> dict[str, list[Array]]:
    """Of each input, its samples of the compiled shape, in order.

    Each input has the compiled shape, or a longer batch axis: the one that is 1 in the compiled shape and
    differs here (axis 1 of ``[2, N, 77]``). TargetError names a wrong input, shape or dtype of ``what``.
    """
    if set(inputs) != set(specs):
        raise TargetError(f"{what}: expected inputs {sorted(specs)}, got {sorted(inputs)}.")
    found: dict[str, list[Array]] = {}
    for name, (shape, dtype) in specs.items():
        array = np.asarray(inputs[name])
        if array.dtype != dtype:
            raise TargetError(f"{what}, input {name!r}: expected dtype {dtype}, got {array.dtype}.")
        found[name] = _cut(array, shape, f"{what}, input {name!r}")
    sizes = {name: len(column) for name, column in found.items()}
    if len(set(sizes.values())) != 1:
        raise TargetError(f"{what}: inputs of one batch size expected, got {sizes}.")
    return found


def digest(sample: Mapping[str, Array]) -> str:
    """A hash of a sample's names, dtypes, shapes and numbers."""
    hashed = hashlib.sha256()
    for name in sorted(sample):
        hashed.update(f"{name} {sample[name].dtype} {sample[name].shape} ".encode())
        hashed.update(np.ascontiguousarray(sample[name]).data)
    return hashed.hexdigest()


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
