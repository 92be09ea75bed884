"""Towers as strangers write them, with all that an NPU dislikes, and some that quantising breaks."""

from __future__ import annotations

import torch
from tiny import DIM, tiny_entry
from torch import Tensor, nn

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.model import DualEncoder, Towers

WIDTH, HEADS = 32, 4


class GeluTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.act = nn.GELU()
        self.head = nn.Linear(16, DIM)

    def forward(self, given: Tensor) -> Tensor:
        result: Tensor = self.head(self.act(self.stem(given)).mean(dim=(2, 3)))
        return result


class PlainText(nn.Module):
    """Attention with an infinite mask, ids cast to int64: all that a stranger's tower brings."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(49408, WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.projection = nn.Linear(WIDTH, DIM)
        self.register_buffer("mask", torch.full((77, 77), float("-inf")).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.token_embedding(ids.long())
        length = ids.shape[1]
        mask = self.mask[:length, :length]
        hidden = self.attn(hidden, hidden, hidden, need_weights=False, attn_mask=mask)[0]
        result: Tensor = self.projection(hidden.mean(dim=1))
        return result


def strangers_model(image: nn.Module | None = None) -> DualEncoder:
    torch.manual_seed(0)
    towers = Towers(image or GeluTower(), PlainText())
    entry = tiny_entry()
    return DualEncoder(towers, entry, get_contract("lpcvc2026_sample"), entry.preprocessing).eval()


class Outlier(nn.Module):
    """Lets its input through beside one value so large that 8 bits can't hold both."""

    def __init__(self, width: int, large: float = 300.0) -> None:
        super().__init__()
        self.head = nn.Linear(width + 1, width)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.weight[:, :width] = torch.eye(width)
            self.head.bias.zero_()
        self.register_buffer("large", torch.full((1, 1), large))

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.head(torch.cat([hidden, self.large], dim=1))
        return result


def image_tower(*layers: nn.Module) -> nn.Module:
    """A convolution, the mean over pixels, and what is given, over 16 channels."""
    start = [nn.Conv2d(3, 16, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*start, *layers, nn.Linear(16, DIM))
