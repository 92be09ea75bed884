"""An image tower at another input size than its own: positions resized, everything else as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.model import Towers
from lpcvc_zoo.weights.resize import resized_grid

STRIDE = 32  # of a CLIP ResNet


@torch.no_grad()
def set_image_size(towers: Towers, size: int, *, what: str) -> None:
    """Make the image tower take ``size`` x ``size`` pixels, in place; ContractError where it can't.

    Learned positions are interpolated (see ``weights.resize``); a convolutional tower needs no change.
    """
    image: Any = towers.image
    try:
        if hasattr(image, "conv1") and hasattr(image, "positional_embedding"):  # open_clip's ViT
            grid = _grid(size, image.conv1.stride[0])
            image.positional_embedding = _resized(image.positional_embedding, grid**2 + 1, what)
            image.grid_size = (grid, grid)
        elif hasattr(image, "attnpool"):  # open_clip's ResNet
            pool = image.attnpool
            pool.positional_embedding = _resized(
                pool.positional_embedding, _grid(size, STRIDE) ** 2 + 1, what
            )
        elif hasattr(getattr(image, "trunk", None), "set_input_size"):  # timm's towers with positions
            image.trunk.set_input_size(img_size=(size, size))
        image.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ContractError(
            "image_size",
            f"a size that {what}'s image tower can take",
            f"{size} ({str(error).splitlines()[0]})",
            "Multiples of 32 suit most.",
        ) from error


def _grid(size: int, stride: int) -> int:
    if size % stride:
        raise ValueError(f"not a multiple of {stride}")
    return size // stride


def _resized(positions: Tensor, length: int, what: str) -> nn.Parameter:
    return nn.Parameter(resized_grid(positions.detach(), length, what=what))
