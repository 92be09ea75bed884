"""What ONNX Runtime makes of a product by 8-bit weights, where a file gives its other side 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bad_models import quantised_channels

from lpcvc_zoo.exporting.parity import run_onnx
from lpcvc_zoo.targets import get_target

STEP = 8 / 65535  # of the result


def by_hand(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The same in numpy: 16-bit x, times weights, plus shifts, in steps of the result."""
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    inner = np.round(x.astype(np.float64) / held["near"]) * held["near"]
    made = inner @ ((held["levels"].astype(np.float64) - 128) * held["each"])
    if proto.graph.node[-3].op_type == "Gemm":
        made += held["shifts"] * held["steps"].astype(np.float64)
    return np.clip(np.round(made / STEP), -32768, 32767) * STEP


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_sixteen_bits_stay_sixteen(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tower.onnx"
    proto = quantised_channels(kind)
    onnx.save(proto, path)
    x = np.random.default_rng(1).uniform(-1, 1, (64, 16)).astype(np.float32)
    expected = by_hand(proto, x)
    target = get_target("onnxruntime")
    (measured,) = target.infer(target.compile(path, "image"), {"x": x}).values()
    for made in (run_onnx(str(path), [x])[0], measured):
        assert np.abs(made - expected).max() < 1.5 * STEP
    plain = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
    assert np.abs(plain - expected).max() > 20 * STEP  # why the option is there
