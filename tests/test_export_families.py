"""One small model of each family through the whole export."""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import onnx
import pytest

from lpcvc_zoo.contract import CONTRACTS, TOWERS
from lpcvc_zoo.exporting.onnx import MIN_COSINE, export
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.registry import build, get_entry, list_models

QUICK = [name for name in list_models() if get_entry(name).quick]
HOSTILE = {
    "ArgMax", "BatchNormalization", "Einsum", "GatherND", "GridSample", "If", "IsNaN", "Loop", "NonZero",
    "Range", "Resize", "ScatterND", "Where",
}  # fmt: skip


# What a contract asks of a graph is the same for every family: one sees both, each other one of the two.
BOTH = "efficientnet_lite0_128_text_xxs"
CASES = [(BOTH, contract) for contract in CONTRACTS]
CASES += zip((name for name in QUICK if name != BOTH), cycle(("lpcvc2026_sample", "lpcvc2026")))


def model_of(name: str, contract: str) -> DualEncoder:
    """The entry's model, of ViT-B/32 two of each tower's twelve layers, which are alike and take long."""
    if name != "openai_clip_vit_b32":
        return build(name, contract=contract)
    model = build(name, contract=contract, text_depth=2)
    del model.image_encoder.tower.transformer.resblocks[2:]
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("name", "contract"), CASES)
def test_a_family_exports_equal_to_torch_without_what_an_npu_dislikes(name, contract, tmp_path) -> None:
    manifest = export(model_of(name, contract), tmp_path).manifest
    for tower in TOWERS:
        made = manifest.tower(tower)
        assert made.parity.min_cosine >= MIN_COSINE
        assert made.input_dtype in ("float32", "int32")
        graph = onnx.load(tmp_path / made.file).graph
        assert not Counter(node.op_type for node in graph.node).keys() & HOSTILE
        for value in (*graph.value_info, *graph.output):
            assert all(size.HasField("dim_value") for size in value.type.tensor_type.shape.dim)
