"""What Qualcomm's compiler takes and computes something else for: the reasons of lint's rules, emulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bad_models import floats, hard_swish, node, quantised_channels, quantised_transpose
from qnn_compiler import needs_compiler
from timm.models.efficientvit_msra import LocalWindowAttention
from timm.utils.model import reparameterize_model
from torch import nn

from lpcvc_zoo.exporting.cascaded import windows_4d
from lpcvc_zoo.exporting.engines import OnnxRuntime, Prepared
from lpcvc_zoo.exporting.lint import lint
from lpcvc_zoo.exporting.multipliers import fit_multipliers
from lpcvc_zoo.exporting.onnx import export_module
from lpcvc_zoo.exporting.parity import run_onnx
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


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_divided_by_too_much_is_nothing(device: str, tmp_path: Path) -> None:
    x = np.array([[100, 16000, 17000, 60000]], np.float32)
    proto = floats(
        node("Add", "x half", "more", "add"), node("Div", "more x", "y", "divide"), shape=(1, 4), half=0.5
    )
    onnx.save(proto, tmp_path / "tower.onnx")
    made = emulated(device, tmp_path / "tower.onnx", "x", x)
    np.testing.assert_allclose(made, [[1.005, 1, 0, 0]], atol=0.005)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("low", "right"), [(0.0, False), (-1.0, True)])
def test_a_transpose_that_clips_is_taken_for_one_that_does_not(
    device: str, low: float, right: bool, tmp_path: Path
) -> None:
    path = tmp_path / "tower.onnx"
    onnx.save(quantised_transpose(low), path)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 8)).astype(np.float32)
    (expected,) = run_onnx(str(path), [x])
    assert QnnTarget(device).check(path).words == ()
    off = np.abs(emulated(device, path, "x", x) - expected).max()
    assert off < 0.02 if right else off > 0.5
    assert ("clipped-transpose" in {finding.rule for finding in lint(path).findings}) != right


@pytest.mark.parametrize("kind", ["Conv", "Concat", "Gemm", "MatMul"])
@pytest.mark.parametrize(("device", "least", "most"), [(DEVICES[0], 5, 20), (DEVICES[1], 0, 1)])
def test_one_chip_shifts_channels_unless_scales_suit_its_multipliers(
    device: str, least: float, most: float, kind: str, tmp_path: Path
) -> None:
    """In steps of the result, of which there are 65535: the mean over pixels, of the worst channel."""
    path = tmp_path / "tower.onnx"
    proto = quantised_channels(kind)
    onnx.save(proto, path)
    shape = [size.dim_value for size in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    each = (0, 2, 3) if kind.startswith("Con") else 0  # all but the channel

    def shift() -> float:
        (expected,) = run_onnx(str(path), [x])
        off = emulated(device, path, "x", x) - expected
        return float(np.abs(off.mean(axis=each)).max() / (8 / 65535))

    assert least < shift() < most
    (before,) = run_onnx(str(path), [x])
    assert fit_multipliers(path) == (2 if kind == "Concat" else 1)
    (after,) = run_onnx(str(path), [x])
    np.testing.assert_allclose(after, before, atol=4 / 4096 + 8 / 65535)
    assert shift() < 1


# The first attention of M0 at 160 pixels, and of M5 at 224: channels, heads, their values over 16, pixels
FIRST = {"M0": (64, 4, 1, 10), "M5": (192, 3, 4, 14)}


@pytest.mark.slow
@pytest.mark.parametrize("size", FIRST)
@pytest.mark.parametrize(
    ("device", "rewritten", "right"),
    [(DEVICES[0], False, False), (DEVICES[0], True, True), (DEVICES[1], False, True)],
)
def test_attention_in_windows_is_wrong_on_one_chip_and_the_rewrite_cures_it(
    device: str, rewritten: bool, right: bool, size: str, tmp_path: Path
) -> None:
    path, x = quantised_attention(size, rewritten, tmp_path)
    (expected,) = run_onnx(str(path), [x])
    assert QnnTarget(device).check(path).words == ()
    got = emulated(device, path, "x", x)
    off = np.sqrt(np.square(got - expected).mean() / np.square(expected).mean())
    assert off < 0.1 if right else off > 0.5
    rules = {finding.rule for finding in lint(path).findings}
    assert ("split-windows" in rules) != rewritten


def quantised_attention(size: str, rewritten: bool, folder: Path) -> tuple[Path, np.ndarray]:
    """In four windows and 16 bits, with random weights."""
    torch.manual_seed(2)
    channels, heads, ratio, side = FIRST[size]
    attention = LocalWindowAttention(channels, 16, heads, attn_ratio=ratio, resolution=side)
    module = nn.Sequential(nn.Conv2d(channels, channels, 1), attention)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=1.6 / channels**0.5)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
    module = reparameterize_model(module.eval())
    if rewritten:
        assert windows_4d(module) == 1
    x = np.random.default_rng(3).normal(size=(1, channels, side, side)).astype(np.float32)
    export_module(module, x, "x", "y", folder / "float.onnx")
    out = folder / "quantised.onnx"
    engine = OnnxRuntime(Prepared(folder / "float.onnx", "x", [x], 16, set(), folder))
    engine.write(set(), out)
    return out, x
