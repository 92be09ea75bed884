"""One small model of each family through the whole export, under both contracts."""

from __future__ import annotations

from collections import Counter
from itertools import product

import onnx
import pytest

from lpcvc_zoo.contract import CONTRACTS, TOWERS
from lpcvc_zoo.exporting.onnx import MIN_COSINE, export
from lpcvc_zoo.registry import build, get_entry, list_models

QUICK = [name for name in list_models() if get_entry(name).quick]
HOSTILE = {
    "ArgMax", "BatchNormalization", "Einsum", "GatherND", "GridSample", "If", "IsNaN", "Loop", "NonZero",
    "Range", "Resize", "ScatterND", "Where",
}  # fmt: skip


# The largest once: TinyCLIP's towers are its kind.
CASES = [pair for pair in product(QUICK, CONTRACTS) if pair != ("openai_clip_vit_b32", "lpcvc2026_sample")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "contract"), CASES)
def test_a_family_exports_equal_to_torch_without_what_an_npu_dislikes(name, contract, tmp_path) -> None:
    manifest = export(build(name, contract=contract), tmp_path).manifest
    for tower in TOWERS:
        made = manifest.tower(tower)
        assert made.parity.min_cosine >= MIN_COSINE
        assert made.input_dtype in ("float32", "int32")
        graph = onnx.load(tmp_path / made.file).graph
        assert not Counter(node.op_type for node in graph.node).keys() & HOSTILE
        for value in (*graph.value_info, *graph.output):
            assert all(size.HasField("dim_value") for size in value.type.tensor_type.shape.dim)
