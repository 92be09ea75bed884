"""Learned positional embeddings for another number of patches or tokens than they were trained for."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

# ViTs' and ResNets' of open_clip, and timm's, the last with a batch axis of 1.
IMAGE_POSITIONS = (
    "image.positional_embedding",
    "image.attnpool.positional_embedding",
    "image.trunk.pos_embed",
)
TEXT_POSITIONS = "text.positional_embedding"
BIASES = ".attention_biases"  # MSRA EfficientViT's: one for each distance of two places of a square window


def resize_positions(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, what: str
) -> dict[str, Tensor]:
    """``state`` with its positional embeddings brought to the lengths of ``wanted``; each change is logged.

    Image: the square grid of patches is interpolated (bicubic, antialiased), a class token's kept. Text: the
    first positions are kept where fewer are wanted, interpolated (linear) where more. Biases by distance
    (``BIASES``) are interpolated as timm does for another image size. Embeddings whose width differs, or
    that are no floats, are left alone. WeightsError where the patches form no square.
    """
    resized = dict(state)
    for name in (*IMAGE_POSITIONS, TEXT_POSITIONS):
        if name not in state or name not in wanted or not state[name].is_floating_point():
            continue
        have, want = tuple(state[name].shape), tuple(wanted[name])
        if have == want or len(have) != len(want) or have[-1] != want[-1]:
            continue
        old, new = have[-2], want[-2]
        resize = resized_text if name == TEXT_POSITIONS else resized_grid
        resized[name] = resize(state[name], new, what=what)
        logger.info("%s: %s resized from %d to %d positions", what, name, old, new)
    for name, biases in state.items():
        other = biases.is_floating_point() and biases.shape != wanted.get(name, biases.shape)
        if name.endswith(BIASES) and other:
            resized[name] = resized_biases(biases, wanted[name])
            logger.info("%s: %s resized from %s to %s", what, name, tuple(biases.shape), wanted[name])
    return resized


def resized_grid(positions: Tensor, length: int, *, what: str) -> Tensor:
    """``[..., P, C]`` for another square grid; ``P``, ``length``: squares, or 1 more with a class token."""
    from timm.layers import resample_abs_pos_embed

    count = positions.shape[-2]
    extra = 0 if _is_square(count) else 1
    if not _is_square(count - extra) or not _is_square(length - extra):
        raise WeightsError(
            f"{what} has positional embeddings for {count} patches and {length} are wanted: "
            "only square grids, with or without a class token on both sides, can be resized."
        )
    new, old = math.isqrt(length - extra), math.isqrt(count - extra)
    flat = positions.float().reshape(1, count, -1)
    resized: Tensor = resample_abs_pos_embed(
        flat, [new, new], [old, old], num_prefix_tokens=extra, interpolation="bicubic", antialias=True
    )
    return resized.reshape(*positions.shape[:-2], length, positions.shape[-1])


def resized_text(positions: Tensor, length: int, *, what: str) -> Tensor:
    """``[P, C]`` for ``length`` tokens.

    A position says "the n-th token", and short texts fill the first ones, so those are kept as trained when
    fewer are wanted: shrinking all of them, as for images, would move every token to a place it never had.
    """
    from torch.nn import functional as F

    if length <= len(positions):
        return positions[:length]
    by_channel = positions.float().mT.unsqueeze(0)
    return F.interpolate(by_channel, size=length, mode="linear", align_corners=False).squeeze(0).mT


def resized_biases(biases: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[heads, P]`` for windows of another size, both squares; itself where that can't be."""
    from timm.layers import resize_rel_pos_bias_table_levit

    heads, length = shape
    if len(biases) != heads or not _is_square(biases.shape[1]) or not _is_square(length):
        return biases
    resized: Tensor = resize_rel_pos_bias_table_levit(biases.float().T, (length, heads)).T
    return resized.contiguous()


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count
