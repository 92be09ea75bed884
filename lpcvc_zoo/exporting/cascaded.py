"""MSRA-EfficientViT's cascaded group attention in windows, for an NPU.

In w8a16 the compiler for HTP v69 was seen to compute convolutions over several windows at once wrongly: it
filled the last third of a packed one's channels with constants, in one window of four (lint's rule
split-windows), and where heads have more than 32 values, it added up another thing than was computed. So all
that looks at single pixels is done before windows are cut out, or after they are put back: windows are for
the attention itself, and for the queries' convolution over neighbours.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpcvc_zoo.exporting.attention import replace


class CascadedAttention(nn.Module):
    """``[N, C, H, W]``: each head attends to its own channels and what the head before it made of others.

    Three convolutions where each head has a packed one; the scale is in the depth-wise convolution of the
    queries. Borders are padded with zeros up to whole windows, as timm does.
    """

    biases: Tensor  # [heads, size * size, size * size]

    def __init__(self, windowed: Any) -> None:
        super().__init__()
        part = windowed.attn
        self.size, width = part.resolution, part.key_dim
        packed = [_folded(each) for each in part.qkvs]
        self.query, self.key, self.value = (
            nn.ModuleList(_rows(each, low, high) for each in packed)
            for low, high in ((0, width), (width, 2 * width), (2 * width, None))
        )
        self.local = nn.ModuleList(_scaled(_folded(each), part.scale) for each in part.dws)
        self.register_buffer("biases", part.attention_biases[:, part.attention_bias_idxs].detach())
        self.proj = part.proj

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        down, right = -height % self.size, -width % self.size
        if down or right:
            x = F.pad(x, (0, right, 0, down))
        mixed: list[Tensor] = []
        for head, own in enumerate(x.chunk(len(self.local), dim=1)):
            seen = own + mixed[-1] if mixed else own
            query, key, value = (
                windows(convolve[head](seen), self.size) for convolve in (self.query, self.key, self.value)
            )
            query = self.local[head](query.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            logits = query.flatten(1, 2) @ key.flatten(1, 2).mT + self.biases[head]
            made = logits.softmax(dim=-1) @ value.flatten(1, 2)
            mixed.append(put_back(made.unflatten(1, (self.size, self.size)), *x.shape[2:]))
        projected: Tensor = self.proj(torch.cat(mixed, dim=1))
        return projected[:, :, :height, :width]


def windows(x: Tensor, size: int) -> Tensor:
    """``[N, C, H, W]`` -> ``[N * windows, size, size, C]``, without any tensor of six axes.

    A row of windows, its lines, and (window, pixel, channel) as one axis: swapping the middle two of
    ``[N * rows, size, columns, size * C]`` cuts windows out, and swapping them again puts these back.
    """
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)
    if height == width == size:
        return pixels
    rows, columns = height // size, width // size
    lines = pixels.reshape(batch * rows, size, columns, size * channels).transpose(1, 2)
    return lines.reshape(-1, size, size, channels)


def put_back(cut: Tensor, height: int, width: int) -> Tensor:
    """What ``windows`` cut out of ``[N, C, height, width]``, as that."""
    size, channels = cut.shape[2:]
    rows, columns = height // size, width // size
    if rows * columns > 1:
        lines = cut.reshape(-1, columns, size, size * channels).transpose(1, 2)
        cut = lines.reshape(-1, height, width, channels)
    return cut.permute(0, 3, 1, 2)


def windows_4d(encoder: nn.Module) -> int:
    """Replace every attention in windows, in place; says how many."""
    from timm.models.efficientvit_msra import LocalWindowAttention

    return replace(
        encoder, lambda part: CascadedAttention(part) if isinstance(part, LocalWindowAttention) else None
    )


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
