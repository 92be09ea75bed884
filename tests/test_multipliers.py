"""Which quantised products get scales that fit; tests/test_miscompiled.py has what these do on a chip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bad_models import quantised_channels
from onnx import numpy_helper
from strangers import strangers_model
from torch import Tensor, cat, nn

from lpcvc_zoo import export
from lpcvc_zoo.exporting.multipliers import fit_multipliers
from lpcvc_zoo.exporting.quantize import quantize


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("steps", lambda steps: steps * 2),  # a beta that the quantiser made part of the scale
        ("steps", lambda steps: steps[0]),
        ("levels", lambda levels: levels.astype(np.int16)),
        ("each", lambda each: each.astype(np.float16)),
    ],
)
def test_a_product_of_another_kind_keeps_its_scales(value: str, other, tmp_path: Path) -> None:
    proto = quantised_channels("Gemm")
    for tensor in proto.graph.initializer:
        if tensor.name == value:
            tensor.CopyFrom(numpy_helper.from_array(other(numpy_helper.to_array(tensor)), value))
    onnx.save(proto, tmp_path / "tower.onnx")
    before = (tmp_path / "tower.onnx").read_bytes()
    assert fit_multipliers(tmp_path / "tower.onnx") == 0
    assert (tmp_path / "tower.onnx").read_bytes() == before


class _Joined(nn.Module):
    """A convolution with a ReLU, beside one without."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(3, 8, 32, stride=32) for _ in range(2))
        self.last = nn.Conv2d(16, 16, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        joined = cat([self.left(pixels).relu(), self.right(pixels)], dim=1)
        return self.last(joined).mean(dim=(2, 3))


def test_a_relu_before_a_concatenation_still_clips_when_quantised(tmp_path: Path) -> None:
    """The quantiser leaves it out, and the range of what it was given clips instead."""
    torch.manual_seed(0)
    whole = export(strangers_model(_Joined()), tmp_path / "float", rewrites="npu")
    made = quantize(whole, tmp_path / "w8a16", "image=w8a16")
    assert "Relu" not in {node.op_type for node in onnx.load(made.path("image")).graph.node}
    quantized = made.manifest.image.quantized
    assert quantized is not None
    assert quantized.agreement.min_cosine > 0.99
