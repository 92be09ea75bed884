"""Layers of uneven size, as automatic pruning leaves them: fewer heads and narrower MLPs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerSize(NamedTuple):
    """Attention heads left in a layer, and the width of its MLP's hidden layer."""

    heads: int
    mlp_width: int


class PrunedAttention(nn.Module):
    """Self-attention whose heads need not span the model's width; parameters named as torch's own.

    Called like ``nn.MultiheadAttention(batch_first=True)`` by open_clip's block.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        inner = heads * head_width
        self.in_proj_weight = nn.Parameter(torch.empty(3 * inner, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * inner))
        self.out_proj = nn.Linear(inner, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        if self.heads == 0:
            return self.out_proj.bias.expand_as(query), None
        batch, length, _ = query.shape
        packed = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        split = packed.view(batch, length, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def prune_blocks(blocks: Sequence[Any], width: int, head_width: int, sizes: Sequence[LayerSize]) -> None:
    """Give each of open_clip's residual blocks its own number of heads and MLP width, freshly initialised."""
    for block, size in zip(blocks, sizes, strict=True):
        block.attn = PrunedAttention(width, size.heads, head_width)
        block.mlp.c_fc = nn.Linear(width, size.mlp_width)
        block.mlp.c_proj = nn.Linear(size.mlp_width, width)


def layer_sizes(shapes: Mapping[str, tuple[int, ...]], prefix: str, head_width: int) -> list[LayerSize]:
    """Sizes of the layers ``{prefix}0.``, ``{prefix}1.``, ... as a checkpoint's shapes give them."""
    sizes: list[LayerSize] = []
    while (key := f"{prefix}{len(sizes)}.attn.out_proj.weight") in shapes:
        mlp = shapes[f"{prefix}{len(sizes)}.mlp.c_fc.weight"]
        sizes.append(LayerSize(shapes[key][1] // head_width, mlp[0]))
    return sizes
