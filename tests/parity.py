"""Deterministic weights in published layouts, and what the authors' own implementations make of them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "parity"
TOLERANCE = 1e-4
# Without it, a network with all its branches folded would forget its input: every layer only shrinks it.
FOLDED_GAIN = np.float32(1.25)


def layout(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a published checkpoint."""
    lines = gzip.decompress((FOLDER / f"{name}.keys.gz").read_bytes()).decode().splitlines()
    return {key: tuple(map(int, shape)) for key, *shape in map(str.split, lines)}


def weights(shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """Tensors of these names and shapes, each made from its name alone."""
    return {name: torch.from_numpy(np.asarray(fill(name, tuple(shape)))) for name, shape in shapes.items()}


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of one tensor. Changing anything here makes every fixture useless."""
    leaf = name.rpartition(".")[2]
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf.endswith("_loga"):  # TinyCLIP's masks; the second layer loses all its heads
        logits = random.uniform(-4, 8, shape)
        logits[1 if leaf == "heads_loga" else slice(0)] = -10
        return logits.astype(np.float32)
    if leaf.startswith("lambda_"):
        return np.full(shape, 10, np.float32)
    if leaf == "logit_scale":
        return np.full(shape, math.log(1 / 0.07), np.float32)
    if leaf == "running_var":
        return (1 + 0.1 * random.rand(*shape)).astype(np.float32)
    if leaf == "running_mean":
        return (0.05 * random.standard_normal(shape)).astype(np.float32)
    if leaf == "gamma" or "layer_scale" in leaf:
        return (0.2 + 0.1 * random.rand(*shape)).astype(np.float32)
    if "embedding" in name or "pos_embed" in name or leaf == "cls_token":
        return (0.02 * random.standard_normal(shape)).astype(np.float32)
    if leaf in ("proj", "text_projection", "projection_layer"):
        return (random.standard_normal(shape) / math.sqrt(shape[0])).astype(np.float32)
    if len(shape) >= 2:
        matrix = (random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
        return matrix * FOLDED_GAIN if name.startswith("image_encoder.") and "reparam" in name else matrix
    if leaf == "weight":
        return (1 + 0.1 * random.rand(*shape)).astype(np.float32)
    return (0.02 * random.standard_normal(shape)).astype(np.float32)


def inputs(image_size: int) -> tuple[Tensor, Tensor]:
    """Two images ``[2, 3, S, S]`` for the bare image tower and two rows of ids ``[2, 77]``, padded with 0."""
    images = np.random.RandomState(0).rand(2, 3, image_size, image_size).astype(np.float32)
    ids = np.zeros((2, 77), np.int32)
    short = [49406, 320, 1125, 539, 320, 2368, 49407]
    long = [49406, *np.random.RandomState(1).randint(1, 49405, 40), 49407]
    ids[0, : len(short)], ids[1, : len(long)] = short, long
    return torch.from_numpy(images), torch.from_numpy(ids)


def assert_agree(got: Tensor, expected: Tensor | np.ndarray) -> None:
    """Every row at most 1e-4 off, in cosine and in the largest difference relative to the largest value."""
    a, b = got.detach().double(), torch.as_tensor(expected).double()
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    cosine = torch.cosine_similarity(a, b, dim=-1).min().item()
    largest = ((a - b).abs().max() / b.abs().max()).item()
    assert 1 - cosine < TOLERANCE, f"cosine {cosine}"
    assert largest < TOLERANCE, f"relative difference {largest}"
