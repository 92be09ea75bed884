"""MSRA-EfficientViT's cascaded group attention, with three convolutions where each head has a packed one.

In w8a16 the compiler for HTP v69 was seen to fill the last third of a packed convolution's channels with
constants, in one window of four (lint's rule split-windows).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class CascadedAttention(nn.Module):
    """``[N, C, H, W]``: each head attends to its own channels and what the head before it made of others.

    The scale is in the depth-wise convolution of the queries.
    """

    biases: Tensor  # [heads, H * W, H * W]

    def __init__(self, part: Any) -> None:
        super().__init__()
        width = part.key_dim
        self.resolution = part.resolution  # which those who cut the windows ask for
        packed = [_folded(each) for each in part.qkvs]
        self.query, self.key, self.value = (
            nn.ModuleList(_rows(each, low, high) for each in packed)
            for low, high in ((0, width), (width, 2 * width), (2 * width, None))
        )
        self.local = nn.ModuleList(_scaled(_folded(each), part.scale) for each in part.dws)
        self.register_buffer("biases", part.attention_biases[:, part.attention_bias_idxs].detach())
        self.proj = part.proj

    def forward(self, x: Tensor) -> Tensor:
        mixed: list[Tensor] = []
        for head, own in enumerate(x.chunk(len(self.local), dim=1)):
            seen = own + mixed[-1] if mixed else own
            query = self.local[head](self.query[head](seen)).flatten(2)
            logits = query.mT @ self.key[head](seen).flatten(2) + self.biases[head]
            value = self.value[head](seen).flatten(2) @ logits.softmax(dim=-1).mT
            mixed.append(value.unflatten(2, x.shape[2:]))
        projected: Tensor = self.proj(torch.cat(mixed, dim=1))
        return projected


def _folded(part: Any) -> nn.Conv2d:
    """A convolution with its BatchNorm, or what ``build(fuse=True)`` has made of the two."""
    conv: nn.Conv2d = part if isinstance(part, nn.Conv2d) else part.fuse()
    return conv


@torch.no_grad()
def _rows(conv: nn.Conv2d, low: int, high: int | None) -> nn.Conv2d:
    """A 1x1 convolution's output channels from ``low`` to before ``high``."""
    assert conv.bias is not None
    weight, bias = conv.weight[low:high], conv.bias[low:high]
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    made.weight, made.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return made


@torch.no_grad()
def _scaled(conv: nn.Conv2d, factor: float) -> nn.Conv2d:
    made = copy.deepcopy(conv)
    assert made.bias is not None
    made.weight *= factor
    made.bias *= factor
    return made
