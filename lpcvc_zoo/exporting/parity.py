"""Two ways to compute the same embeddings, held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpcvc_zoo.exporting.artifact import Parity
from lpcvc_zoo.sessions import session_options

if TYPE_CHECKING:
    from torch import nn

    from lpcvc_zoo.contract import Array

    Embeddings = list[np.ndarray]


def run_torch(module: nn.Module, inputs: Sequence[Array]) -> Embeddings:
    """Embeddings float64 ``[1, D]`` of each input (batch 1)."""
    import torch

    with torch.no_grad():
        return [module(torch.from_numpy(array)).double().numpy() for array in inputs]


def run_onnx(model: str | bytes, inputs: Sequence[Array]) -> Embeddings:
    """The same by ONNX Runtime, from a path or a serialised model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: array})[0].astype(np.float64) for array in inputs]


def agreement(expected: Embeddings, got: Embeddings) -> Parity:
    """The worst over all inputs; NaN where there was one."""
    cosines, differences = [], []
    for one, other in zip(expected, got, strict=True):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines.append(float(((one * other).sum(axis=1) / lengths).min()))
        differences.append(float(np.abs(one - other).max()))
    # numpy's min and max carry a NaN on, where Python's might drop it
    return Parity(
        samples=len(expected),
        min_cosine=float(np.min(cosines)),
        max_abs_difference=float(np.max(differences)),
    )
