"""Changes of a training image that leave its texts true; see ``recipe.Augment``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from lpcvc_zoo.training.recipe import Augment

LEAST_RATIO = 3 / 4  # of a crop's width to its height, and the other way round


@dataclass(frozen=True)
class Augmenter:
    """Makes the changes; everything random is drawn from the generator that a call gets."""

    options: Augment

    def flips(self, directional: bool, random: np.random.Generator) -> bool:
        """Whether to flip an image; ``directional``: one of its texts names a direction."""
        mode = self.options.flip
        chosen = bool(random.random() < 0.5)  # drawn in any case, so that later draws stay the same
        return chosen and (mode == "swap_words" or (mode == "unless_directional" and not directional))

    def __call__(self, image: Tensor, *, flip: bool, whole: bool, random: np.random.Generator) -> Tensor:
        """A changed copy of uint8 ``[3, H, W]``; smaller where it is cropped, which ``whole`` forbids."""
        options = self.options
        if flip:
            image = image_ops.horizontal_flip(image)
        if options.crop < 1 and not whole:
            top, left, height, width = crop_box(image.shape[1], image.shape[2], options.crop, random)
            image = image_ops.crop(image, top, left, height, width)
        if options.rotate:
            angle = random.uniform(-options.rotate, options.rotate)
            interpolation = image_ops.InterpolationMode.BILINEAR
            image = image_ops.rotate(image, angle, interpolation, fill=[127.0])
        for change, most in (
            (image_ops.adjust_brightness, options.brightness),
            (image_ops.adjust_contrast, options.contrast),
            (image_ops.adjust_saturation, options.saturation),
        ):
            if most:
                image = change(image, float(random.uniform(1 - most, 1 + most)))
        if options.blur and random.random() < options.blur:
            image = image_ops.gaussian_blur(image, [5, 5], [float(random.uniform(0.3, 1.5))])
        if options.noise and random.random() < options.noise:
            grains = random.normal(0, random.uniform(1, 12), image.shape).astype(np.float32)
            image = (image + torch.from_numpy(grains)).round().clamp(0, 255).to(torch.uint8)
        return image


def crop_box(height: int, width: int, least: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop that keeps the share ``least`` of the area or more."""
    share = random.uniform(least, 1)
    stretch = math.exp(random.uniform(math.log(LEAST_RATIO), -math.log(LEAST_RATIO)) / 2)
    across = min(1.0, max(share, math.sqrt(share) * stretch))  # so that the other edge stays in the image
    down = share / across
    new_height, new_width = max(1, round(height * down)), max(1, round(width * across))
    new_height, new_width = min(new_height, height), min(new_width, width)
    top = int(random.integers(height - new_height + 1))
    left = int(random.integers(width - new_width + 1))
    return top, left, new_height, new_width


def resized(image: Tensor, size: int, interpolation: str) -> Tensor:
    """uint8 ``[..., 3, H, W]`` to ``[..., 3, size, size]``, antialiased; itself where it has that size."""
    if tuple(image.shape[-2:]) == (size, size):
        return image
    mode = image_ops.InterpolationMode(interpolation)
    result: Tensor = image_ops.resize(image, [size, size], mode, antialias=True)
    return result
