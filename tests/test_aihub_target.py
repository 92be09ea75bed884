"""The AI Hub target against the loopback service, through the real client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aihub_models
import numpy as np
import onnxruntime
from aihub_server import AIHubServer

from lpcvc_zoo.targets.aihub import AIHubTarget, Patience

QUICK = Patience(tries=4, first_s=0.001, most_s=0.002)


def target(**options: Any) -> AIHubTarget:
    return AIHubTarget(**({"patience": QUICK, "poll_s": 0.001} | options))


def in_onnxruntime(file: Path, inputs: dict[str, Any], axis: int) -> Any:
    session = onnxruntime.InferenceSession(str(file))
    (name,) = inputs
    parts = np.split(inputs[name], inputs[name].shape[axis], axis=axis)
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def test_a_tower_is_compiled_measured_and_run(hub: AIHubServer, tmp_path: Path) -> None:
    hub.state.slow = 2
    where, file = target(), aihub_models.image_tower(tmp_path)
    compiled = where.compile(file, "image")
    profile = where.profile(compiled)
    outputs = where.infer(compiled, aihub_models.images(3))
    assert profile.device == "XR2 Gen 2 (Proxy)"
    assert len(profile.latency.iterations_ms) == 100
    assert profile.layers_by_unit == {"NPU": 2}
    np.testing.assert_array_equal(outputs["image_embedding"], in_onnxruntime(file, aihub_models.images(3), 0))
    print(profile)
