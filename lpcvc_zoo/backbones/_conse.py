"""A classifier as an image tower: the mean of its classes' embeddings under its probabilities.

A family imports this file inside ``make``: it needs torch.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class ConSETower(nn.Module):
    """Normalised pixels ``[N, 3, S, S]`` -> ``[N, D]``: ConSE (arXiv:1312.5650) over all classes.

    The paper takes the ten likeliest classes; under a softmax the others weigh next to nothing, and a TopK
    would run on no NPU. A temperature is folded into the classifier's weights.
    """

    def __init__(self, trunk: nn.Module, classes: int, embed_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.class_embeddings = nn.Linear(classes, embed_dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        probabilities = self.trunk(pixels).softmax(dim=-1)
        return cast(Tensor, self.class_embeddings(probabilities))
