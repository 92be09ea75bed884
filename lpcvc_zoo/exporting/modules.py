"""Other rewrites of a tower's modules: linear attention, and pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lpcvc_zoo.exporting.attention import replace

LEAST = 1e-4  # to divide by: fp16 has its inverse


class LinearAttention(nn.Module):
    """MIT-EfficientViT's linear attention, tokens last, as weighted means instead of a sum by a sum.

    What calibrates gave one of these sums so large a range that another photo's smallest was a single step
    of 16 bits, and became 0. The original also pads its values, which a compiler does wrong.
    """

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.qkv, self.aggreg, self.kernel_func, self.proj = (
            part.qkv,
            part.aggreg,
            part.kernel_func,
            part.proj,
        )
        self.dim = part.dim
        self.in_float = _Shares()  # by this name, quantisation leaves it alone

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        scales = torch.cat([qkv, *(scale(qkv) for scale in self.aggreg)], dim=1)
        q, k, v = scales.reshape(batch, -1, 3 * self.dim, height * width).chunk(3, dim=2)
        keys, queries = self.in_float(self.kernel_func(k), self.kernel_func(q))
        mixed = v @ keys.mT @ queries
        projected: Tensor = self.proj(mixed.reshape(batch, -1, height, width))
        return projected


class _Shares(nn.Module):
    """Each key's share of all tokens, and of each query the share that every channel has: 0 to 1.

    Multiplied and added up, no matrix product, which would have one row (see lint's rule narrow-product).
    Channels are weighed by what is 1 on average: by their sums, the totals of wide towers were in the
    millions, and fp16 can divide by no more than 16384 (lint's rule fp16-divisor). What is below ``LEAST``
    counts as that, so the shares of what next to nothing asks for are too small.
    """

    def forward(self, keys: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        sums = keys.sum(dim=-1, keepdim=True)
        means = sums / keys.shape[-1]
        asked = queries * (means / means.mean(dim=-2, keepdim=True).clamp(min=LEAST))
        total = asked.sum(dim=-2, keepdim=True)
        return keys / sums.clamp(min=LEAST), asked / total.clamp(min=LEAST)


def linear_attention(encoder: nn.Module) -> int:
    from timm.models.efficientvit_mit import LiteMLA

    return replace(encoder, lambda part: LinearAttention(part) if isinstance(part, LiteMLA) else None)


class AveragePooled(nn.Module):
    """open_clip's vision transformer without its class token: the mean of all patches is projected."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self.positions = nn.Parameter(tower.positional_embedding[1:].detach().clone())

    def forward(self, pixels: Tensor) -> Tensor:
        tower = self.tower
        patches = tower.conv1(pixels).flatten(2).mT + self.positions
        hidden = tower.transformer(tower.ln_pre(patches))
        pooled = tower.ln_post(hidden.mean(dim=1))
        return pooled if tower.proj is None else torch.matmul(pooled, tower.proj)


def cls_to_average(encoder: nn.Module) -> int:
    """Average pooling instead of the class token: another function, which nothing holds to the old one.

    Only a checkpoint that was trained so keeps its recall. The graph is still held to the rewritten model in
    torch, and the manifest has the worst cosine to the embeddings before.
    """
    from open_clip.transformer import VisionTransformer

    return replace(
        encoder,
        lambda part: (
            AveragePooled(part)
            if isinstance(part, VisionTransformer) and part.pool_type == "tok" and part.attn_pool is None
            else None
        ),
    )
