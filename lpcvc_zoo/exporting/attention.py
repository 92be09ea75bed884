"""Attention as a phone's NPU likes it: three projections, products of 4-D tensors, the scale in the weights.

A packed projection to queries, keys and values is taken apart by a 5-D transpose and three Gathers, which the
compiler for HTP v69 was seen to send through main memory: apart, TinyCLIP-8M's image tower reads 17 MB of it
instead of 35 and writes none instead of 12. Written as 1x1 convolutions, the same has half again as much
on-chip traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lpcvc_zoo.backbones._pruned import PrunedAttention


class SplitAttention(nn.Module):
    """Self-attention ``[N, L, C]`` -> ``[N, L, D]`` whose queries come already scaled."""

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Module, heads: int
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out, self.heads = query, key, value, out, heads

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        query = self.by_head(self.query(tokens)).transpose(1, 2)
        key = self.by_head(self.key(tokens)).permute(0, 2, 3, 1)
        value = self.by_head(self.value(tokens)).transpose(1, 2)
        logits = query @ key
        if mask is not None:
            logits = logits + mask
        mixed: Tensor = self.out((logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
        return mixed

    def by_head(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        return tokens.view(batch, length, self.heads, width // self.heads)


class BlockAttention(SplitAttention):
    """In the place of ``nn.MultiheadAttention(batch_first=True)`` inside open_clip's blocks."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        return self.attend(query, attn_mask), None


class TokenAttention(SplitAttention):
    """In the place of timm's attention over tokens."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.attend(x, attn_mask)


class PixelAttention(SplitAttention):
    """In the place of FastViT's attention over a feature map ``[N, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x.flatten(2).mT).mT.reshape(x.shape)


class PoolAttention(SplitAttention):
    """In the place of CLIP-ResNet's pooling: only the mean asks, where the original lets every pixel ask.

    What it asks is multiplied and added up, no matrix product, which would have one row (see lint's rule
    narrow-product).
    """

    def __init__(self, pool: Any) -> None:
        width = pool.q_proj.in_features
        scaled = _linear(pool.q_proj.weight, pool.q_proj.bias, (width // pool.num_heads) ** -0.5)
        super().__init__(scaled, pool.k_proj, pool.v_proj, pool.c_proj, pool.num_heads)
        self.positions = pool.positional_embedding

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).mT
        tokens = torch.cat([pixels.mean(dim=1, keepdim=True), pixels], dim=1) + self.positions
        query, key, value = (
            self.by_head(made).permute(0, 2, 3, 1)
            for made in (self.query(tokens[:, :1]), self.key(tokens), self.value(tokens))
        )
        logits = (query * key).sum(dim=2, keepdim=True)
        mixed: Tensor = self.out((logits.softmax(dim=-1) * value).sum(dim=-1).flatten(1))
        return mixed


def split_attention(encoder: nn.Module) -> int:
    """Replace every attention that is understood, in place; says how many."""
    return replace(encoder, _split)


def _split(part: nn.Module) -> nn.Module | None:
    from open_clip.modified_resnet import AttentionPool2d
    from timm.layers.attention import Attention
    from timm.models.fastvit import Attention as FastAttention

    if isinstance(part, AttentionPool2d):
        return PoolAttention(part)
    if isinstance(part, nn.MultiheadAttention):
        plain = part.batch_first and part.in_proj_weight is not None and part.bias_k is None
        if not plain or part.add_zero_attn:
            return None
        packed = part.in_proj_weight, part.in_proj_bias
        return BlockAttention(*_projections(*packed, part.num_heads), part.out_proj, part.num_heads)
    if isinstance(part, PrunedAttention):
        if part.heads == 0:
            return None
        packed = part.in_proj_weight, part.in_proj_bias
        return BlockAttention(*_projections(*packed, part.heads), part.out_proj, part.heads)
    if isinstance(part, FastAttention):
        packed = part.qkv.weight, part.qkv.bias
        return PixelAttention(*_projections(*packed, part.num_heads), part.proj, part.num_heads)
    if type(part) is Attention:
        extras = (part.q_norm, part.k_norm, part.norm)
        if not all(isinstance(extra, nn.Identity) for extra in extras) or part.gate is not None:
            return None
        packed = part.qkv.weight, part.qkv.bias
        return TokenAttention(*_projections(*packed, part.num_heads), part.proj, part.num_heads)
    return None


def _projections(weight: Tensor, bias: Tensor | None, heads: int) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Queries, scaled, keys and values from a packed projection ``[3 D, C]``."""
    inner = weight.shape[0] // 3
    scale = (inner // heads) ** -0.5
    biases = (None, None, None) if bias is None else bias.chunk(3)
    query, key, value = (
        _linear(rows, part, factor)
        for rows, part, factor in zip(weight.chunk(3), biases, (scale, 1.0, 1.0), strict=True)
    )
    return query, key, value


@torch.no_grad()
def _linear(weight: Tensor, bias: Tensor | None, factor: float) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight * factor)
    if bias is not None:
        made.bias = nn.Parameter(bias * factor)
    return made


def replace(root: nn.Module, new_for: Callable[[nn.Module], nn.Module | None]) -> int:
    """Put ``new_for(part)`` in the place of every part for which it is not None; says how many."""
    found = [
        (parent, name, new)
        for parent in root.modules()
        for name, child in parent.named_children()
        if (new := new_for(child)) is not None
    ]
    for parent, name, new in found:
        setattr(parent, name, new.eval())
    return len(found)
