"""Weights that measure what trained ones would: for entries whose checkpoints are on a hub.

Networks are born with many parts switched off: a BatchNorm that ends a residual branch multiplies by 0, a
LayerScale by 0.00001. Whatever a compiler makes of such a branch, the embedding is the same. And BatchNorm
that has seen no data leaves activations in ranges that no trained network has. Here these
factors are 0.1, and the image tower's BatchNorm has the statistics of photos, so that activations have the
size of a trained network's. The rest stays random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from qnn_page import SETTLED, TRAINED
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lpcvc_zoo import build, get_entry
from lpcvc_zoo.data import sample_photos
from lpcvc_zoo.model import DualEncoder, Towers
from lpcvc_zoo.training.checkpoint import facts_of, save_towers

WEIGHTS = Path("runs/settled")
PHOTOS = 16
OFF, ON = 0.02, 0.1  # a factor below the first counts as switched off


def shipped(name: str) -> str | None:
    """The tag of the weights that come with the package, where there are some."""
    return next((weights.tag for weights in get_entry(name).pretrained if weights.shipped), None)


def own_kind(name: str) -> str:
    """What a line of measurements says of ``own_weights(name)``."""
    return TRAINED if "." in name or shipped(name) else SETTLED


def own_weights(name: str) -> str | Path:
    """For ``build(name, pretrained=...)``: the tag in the name or of the package, else a settled file."""
    return name.partition(".")[2] or shipped(name) or settled(name, WEIGHTS)


def settled(name: str, folder: Path) -> Path:
    """A file of weights for ``build(name, pretrained=file)``, the same each time."""
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    model = build(name, contract="lpcvc2026_sample", fuse=False)
    _settle(model)
    save_towers(Towers(model.image_tower, model.text_tower), path, facts_of(model))
    return path


@torch.no_grad()
def _settle(model: DualEncoder) -> None:
    norms = []
    for part in model.modules():
        for factor in _factors(part):
            if factor.abs().max() < OFF:
                nn.init.constant_(factor, ON)
        if isinstance(part, _BatchNorm):
            part.momentum = 1.0  # this batch's alone
            norms.append(part.train())
    prepare = model.contract.prepare_image
    model.encode_image(np.concatenate([prepare(photo) for photo in sample_photos(PHOTOS)]))
    for norm in norms:
        norm.eval()


def _factors(part: nn.Module) -> list[Tensor]:
    """What a part multiplies whole channels by."""
    normalises = isinstance(part, _BatchNorm | nn.LayerNorm)
    return [
        value
        for name, value in part.named_parameters(recurse=False)
        if name in ("gamma", "layer_scale") or (name == "weight" and normalises)
    ]
