"""What Qualcomm's compiler takes and computes something else for: the reasons of lint's rules, emulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bad_models import hard_swish
from qnn_compiler import needs_compiler
from timm.models.efficientvit_msra import LocalWindowAttention
from timm.utils.model import reparameterize_model
from torch import nn

from lpcvc_zoo.exporting.attention import split_attention
from lpcvc_zoo.exporting.engines import OnnxRuntime, Prepared
from lpcvc_zoo.exporting.lint import lint
from lpcvc_zoo.exporting.modules import windows_4d
from lpcvc_zoo.exporting.onnx import export_module
from lpcvc_zoo.files import CACHE_VARIABLE
from lpcvc_zoo.targets.qnn.target import QnnTarget

pytestmark = needs_compiler
DEVICES = ("XR2 Gen 2", "Snapdragon 8 Elite")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def emulated(device: str, path: Path, name: str, x: np.ndarray) -> np.ndarray:
    target = QnnTarget(device)
    (made,) = target.infer(target.compile(path, "image"), {name: x}).values()
    return made


@pytest.mark.parametrize("device", DEVICES)
def test_a_hard_swish_of_two_nodes_is_taken_for_another_function(device: str, tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 8, dtype=np.float32)[None]
    double = 2 * x
    swish = double * np.clip(double / 6 + 0.5, 0, 1)
    for product, expected in (("x gate", double * swish), ("gate x", swish)):
        onnx.save(hard_swish(product), tmp_path / "tower.onnx")
        np.testing.assert_allclose(emulated(device, tmp_path / "tower.onnx", "given", x), expected, atol=0.02)
    onnx.save(hard_swish(quantised=True), tmp_path / "tower.onnx")  # x is 16 bits, 0 to 65
    x = 4 * np.abs(x)
    np.testing.assert_allclose(
        emulated(device, tmp_path / "tower.onnx", "given", x), x * np.clip(x / 6 + 0.5, 0, 1), atol=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "split", "right"),
    [(DEVICES[0], False, False), (DEVICES[0], True, True), (DEVICES[1], False, True)],
)
def test_split_windows_are_wrong_on_one_chip_and_the_rewrite_cures_them(
    device: str, split: bool, right: bool, tmp_path: Path
) -> None:
    path, x = quantised_attention(split, tmp_path)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    assert QnnTarget(device).check(path).words == ()
    got = emulated(device, path, "x", x)
    off = np.sqrt(np.square(got - expected).mean() / np.square(expected).mean())
    assert off < 0.1 if right else off > 0.5
    rules = {finding.rule for finding in lint(path).findings}
    assert ("split-windows" in rules) != split


def quantised_attention(split: bool, folder: Path) -> tuple[Path, np.ndarray]:
    """EfficientViT-M0's first attention, in four windows and 16 bits, with random weights."""
    torch.manual_seed(2)
    attention = LocalWindowAttention(64, 16, 4, attn_ratio=1, resolution=10, window_resolution=7)
    module = nn.Sequential(nn.Conv2d(64, 64, 1), attention)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
    module = reparameterize_model(module.eval())
    if split:
        assert split_attention(module) == 1
    assert windows_4d(module) == 1
    x = np.random.default_rng(3).normal(size=(1, 64, 10, 10)).astype(np.float32)
    export_module(module, x, "x", "y", folder / "float.onnx")
    out = folder / "quantised.onnx"
    engine = OnnxRuntime(Prepared(folder / "float.onnx", "x", [x], 16, set(), folder))
    engine.write(set(), out)
    return out, x
