"""Model soups: one checkpoint out of several fine-tuned from the same start, by averaging their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def average(states: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The weighted mean of several state dicts, each under the name that messages call it by.

    ``weights`` has a positive number for each, and only their ratios matter. Floating point is averaged in
    fp64 and returned in fp32. Integers, such as BatchNorm's counters, are not averaged: they must agree,
    counters excepted, which take the largest.

    WeightsError where the state dicts are not of the same names, shapes and integers.
    """
    total = sum(weights.values())
    if not states or not all(math.isfinite(weight) and weight > 0 for weight in weights.values()):
        raise WeightsError(f"A soup needs positive, finite weights; got {dict(weights)}.")
    (first, reference), *others = states.items()
    for name, state in others:
        _check_alike(first, reference, name, state)
    soup: dict[str, Tensor] = {}
    for key, tensor in reference.items():
        if tensor.is_floating_point():
            mixed = sum(state[key].double() * (weights[name] / total) for name, state in states.items())
            soup[key] = mixed.float()  # type: ignore[union-attr]  # states is not empty
        else:
            soup[key] = _agreed(key, {name: state[key] for name, state in states.items()})
    return soup


def _agreed(key: str, tensors: Mapping[str, Tensor]) -> Tensor:
    (first, reference), *others = tensors.items()
    if key.endswith("num_batches_tracked"):
        return max(tensors.values(), key=lambda tensor: int(tensor))
    for name, tensor in others:
        if not tensor.equal(reference):
            raise WeightsError(f"No soup of {first} and {name}: their integers {key} differ.")
    return reference


def _check_alike(first: str, reference: Mapping[str, Tensor], name: str, state: Mapping[str, Tensor]) -> None:
    if apart := sorted(reference.keys() ^ state.keys()):
        shown = ", ".join(apart[:5]) + (", ..." if len(apart) > 5 else "")
        raise WeightsError(
            f"No soup of {first} and {name}: {len(apart)} names are in one only: {shown}. "
            "Average checkpoints of the same model, fine-tuned from the same start."
        )
    for key, tensor in reference.items():
        if tensor.shape != state[key].shape:
            raise WeightsError(
                f"No soup of {first} and {name}: {key} is {list(tensor.shape)} in one and "
                f"{list(state[key].shape)} in the other."
            )
