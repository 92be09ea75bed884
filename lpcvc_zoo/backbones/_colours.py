"""The colours of a picture as part of its embedding, beside the kinds of things that a classifier sees.

A family imports this file inside ``make``: it needs torch.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

NAMES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
HIDDEN = 16
GRID = 32  # a picture's colours are named at this many places across and down


class Colours(nn.Module):
    """Normalised pixels ``[N, 3, S, S]``, ``S`` from 32 on -> ``[N, D]``: of basic colours' words.

    English has eleven basic colour terms (Berlin and Kay, 1969; of pixels: van de Weijer et al., "Learning
    Color Names for Real-World Applications", 2009). Each place of a grid is named, softly; of a colour's
    share the middle of the picture, where its subject is, makes up more than half. The root keeps small
    shares in sight: Euclid's distance is then Hellinger's.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.naming = nn.Sequential(nn.Conv2d(3, HIDDEN, 1), nn.Hardswish(), nn.Conv2d(HIDDEN, len(NAMES), 1))
        self.words = nn.Linear(len(NAMES), embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        places = functional.avg_pool2d(pixels, pixels.shape[-1] // GRID)
        named = self.naming(places).softmax(dim=1)
        middle = named[:, :, GRID // 4 : -GRID // 4, GRID // 4 : -GRID // 4]
        shares = (named.mean(dim=(2, 3)) + middle.mean(dim=(2, 3))) / 2
        return cast(Tensor, self.words(shares.sqrt()))
