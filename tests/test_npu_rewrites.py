"""The benchmark that holds a tower's emulated embeddings against torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


class Emulator:
    """A target that takes everything, and emulates an input to itself."""

    def compile(self, path, tower):
        return path

    def profile(self, compiled):
        return SimpleNamespace(file_bytes=None, traffic=None)

    def infer(self, compiled, inputs):
        return {"embedding": inputs["image"]}


@pytest.mark.parametrize("order", [(1.0, np.nan), (np.nan, 1.0)])
def test_one_embedding_that_is_nan_is_the_worst(monkeypatch, order) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from npu_rewrites import measured

    file = SimpleNamespace(nodes=1, input_name="image", output_name="embedding")
    artifact = SimpleNamespace(manifest=SimpleNamespace(tower=lambda tower: file), path=Path)
    emulated = [np.full((1, 4), value, np.float32) for value in order]
    assert np.isnan(measured(Emulator(), artifact, "image", emulated, [torch.ones(1, 4)] * 2)["cosine"])
