"""A classifier as an image tower: the mean of its classes' embeddings under its probabilities, and colours.

A family imports this file inside ``make``: it needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from lpcvc_zoo.backbones._colours import Colours
from lpcvc_zoo.backbones._towers import small_text_tower
from lpcvc_zoo.model import Towers, unit_length

if TYPE_CHECKING:
    from lpcvc_zoo.backbones.text_transformer import TextShape
    from lpcvc_zoo.entry import TextSpec

CLASSES = 1000  # ImageNet's


def conse_towers(trunk: str, shape: TextShape, text: TextSpec, embed_dim: int, **options: object) -> Towers:
    """timm's classifier of that name as the image tower, beside a small text transformer."""
    import timm

    classifier: nn.Module = timm.create_model(trunk, num_classes=CLASSES, **options)
    return Towers(ConSETower(classifier, CLASSES, embed_dim), small_text_tower(shape, text, embed_dim))


class ConSETower(nn.Module):
    """Normalised pixels ``[N, 3, S, S]`` -> ``[N, D]``: ConSE (arXiv:1312.5650), and colours.

    All classes count, where the paper takes the ten likeliest: under a softmax the others weigh next to
    nothing, and a TopK would run on no NPU. A temperature is folded into the classifier's weights, and into
    the colours' how much they count beside a unit-length embedding of the classes.
    """

    def __init__(self, trunk: nn.Module, classes: int, embed_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.class_embeddings = nn.Linear(classes, embed_dim, bias=False)
        self.colours = Colours(embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        probabilities = self.trunk(pixels).softmax(dim=-1)
        kinds = unit_length(self.class_embeddings(probabilities))
        return cast(Tensor, kinds + self.colours(pixels))
