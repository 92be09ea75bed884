"""AIMET as the engine that quantises: the same judgement, the same parts in float, and the NPU takes it.

AIMET is no part of the extra ``dev``, because it installs 0.8 GB: where nobody asked for it, most is skipped.
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from qnn_compiler import needs_compiler
from strangers import Outlier, image_tower, strangers_model
from torch import nn

from lpcvc_zoo.cli import main
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.errors import ExportError, MissingExtraError, UnknownNameError
from lpcvc_zoo.exporting import aimet, cache
from lpcvc_zoo.exporting import quantize as room
from lpcvc_zoo.exporting.aimet import make_weights_unsigned, nodes_by_value
from lpcvc_zoo.exporting.artifact import MANIFEST, Artifact, load_artifact
from lpcvc_zoo.exporting.calibrate import held_out_inputs
from lpcvc_zoo.exporting.onnx import export
from lpcvc_zoo.exporting.parity import run_onnx
from lpcvc_zoo.exporting.quantize import explain, quantize
from lpcvc_zoo.targets.qnn.target import QnnTarget

CONTRACT = get_contract("lpcvc2026_sample")
needs_aimet = pytest.mark.skipif(
    find_spec("aimet_onnx") is None, reason="AIMET is not installed: pip install 'lpcvc-zoo[aimet]'"
)


class Convolutions(nn.Module):
    """Of the kinds that a phone's trunk has: clipped, depthwise and clipped, and linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 8, stride=8),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 1),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(pixels)
        return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    trunk = nn.Sequential(Convolutions(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 64))
    return export(strangers_model(trunk), tmp_path_factory.mktemp("float"), rewrites="npu")


@pytest.fixture(scope="module", params=["w8a16", "w8a8"])
def quantized(request, whole, tmp_path_factory):
    pytest.importorskip("aimet_onnx", reason="AIMET is not installed: pip install 'lpcvc-zoo[aimet]'")
    return quantize(whole, tmp_path_factory.mktemp(request.param), request.param, samples=8, engine="aimet")


# Without AIMET


def test_an_engine_that_is_not_there_is_named_before_anything_is_read(tmp_path, monkeypatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(aimet, "version", absent)
    unreadable = Artifact(tmp_path, None)
    with pytest.raises(MissingExtraError, match=r"aimet-onnx.*pip install 'lpcvc-zoo\[aimet\]'"):
        quantize(unreadable, tmp_path, "w8a16", engine="aimet")
    with pytest.raises(UnknownNameError, match="Did you mean 'aimet'"):
        explain(unreadable, "w8a16", engine="aimte")


def test_the_command_says_what_to_install_before_it_exports(monkeypatch, capsys) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(aimet, "version", absent)
    monkeypatch.setattr(cache, "cached_export", lambda *_, **__: pytest.fail("it exported"))
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "efficientvit_m0_text_s", "--engine", "aimet"])
    assert ended.value.code == 1
    assert "lpcvc-zoo[aimet]" in capsys.readouterr().err


def test_what_only_a_clip_reads_and_its_bounds_have_no_range() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["inner"], name="conv"),
        helper.make_node("Clip", ["inner", "low", "high"], ["clipped"], name="clip"),
        helper.make_node("Add", ["clipped", "low"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["positive"], name="relu"),
        helper.make_node("Mul", ["sum", "positive"], ["y"], name="mul"),
    ]
    found = nodes_by_value(helper.make_graph(nodes, "tower", [], []))
    assert found == {
        "x": {"conv"},
        "weight": {"conv"},
        "clipped": {"clip", "add"},
        "low": {"add"},
        "sum": {"add", "relu", "mul"},
        "positive": {"relu", "mul"},
        "y": {"mul"},
    }


def test_unsigned_weights_are_the_same_numbers() -> None:
    numbers = np.random.default_rng(0).integers(-128, 128, (4, 3), dtype=np.int8)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["y"], axis=0)],
            "weights",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
            [
                numpy_helper.from_array(numbers, "w"),
                numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "scale"),
                numpy_helper.from_array(np.array([0, -128, 127, 5], np.int8), "zero"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )

    def run() -> np.ndarray:
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})[0]

    before = run()
    make_weights_unsigned(model)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"w": TensorProto.UINT8, "scale": TensorProto.FLOAT, "zero": TensorProto.UINT8}
    np.testing.assert_array_equal(run(), before)


# With it


def test_the_manifest_says_which_aimet_made_it_and_how_well_it_agrees(quantized, whole, tmp_path) -> None:
    again = load_artifact(quantized.folder).manifest
    other = quantize(whole, tmp_path, again.precision, samples=8).manifest
    for tower in TOWERS:
        facts, by_onnxruntime = again.tower(tower).quantized, other.tower(tower).quantized
        assert facts.engine == f"aimet-onnx {version('aimet-onnx')}"
        assert by_onnxruntime.engine == f"onnxruntime {version('onnxruntime')}"
        assert facts.calibration == by_onnxruntime.calibration
        assert facts.agreement.samples == by_onnxruntime.agreement.samples
        assert facts.kept == ()
        assert facts.mean_cosine == pytest.approx(by_onnxruntime.mean_cosine, abs=0.003)
        assert facts.mean_cosine > 0.99


def test_weights_have_eight_bits_and_activations_what_was_asked(quantized) -> None:
    wide = TensorProto.UINT16 if quantized.manifest.precision == "w8a16" else TensorProto.UINT8
    for tower in TOWERS:
        graph = onnx.load(quantized.path(tower)).graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        steps = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        assert {stored[node.input[2]].data_type for node in steps} == {wide}
        made = {name: node for node in graph.node for name in node.output}
        heavy = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        assert heavy
        for node in heavy:
            weights = made[node.input[1]]
            assert weights.op_type == "DequantizeLinear"
            assert stored[weights.input[0]].data_type == TensorProto.UINT8
            channels = set(stored[weights.input[0]].dims[:2])
            assert set(stored[weights.input[1]].dims) <= channels  # a scale for each
            assert stored[made[node.input[2]].input[0]].data_type == TensorProto.INT32


def test_pixels_the_token_embedding_and_the_end_stay_float(quantized, whole) -> None:
    for tower in TOWERS:
        graph = onnx.load(quantized.path(tower)).graph
        made = {name: node for node in graph.node for name in node.output}
        steps = ("QuantizeLinear", "DequantizeLinear")
        assert not any(node.op_type in steps for node in graph.node if tower in node.input)
        end = made[graph.output[0].name]
        assert end.op_type == "Div"
        assert not any(made[name].op_type in steps for name in end.input)
    tables = [onnx.load(artifact.path("text")).graph for artifact in (quantized, whole)]
    looked_up = []
    for graph in tables:
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        (lookup,) = (node for node in graph.node if node.op_type == "Gather" and node.input[0] in stored)
        looked_up.append(stored[lookup.input[0]])
    assert looked_up[0].dtype == np.float32
    np.testing.assert_array_equal(*looked_up)


@needs_aimet
def test_the_layer_that_costs_most_is_left_in_float_or_the_tower_is_refused(tmp_path, monkeypatch) -> None:
    torch.manual_seed(1)
    layers = [nn.Linear(16, 16), Outlier(16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)]
    broken = export(strangers_model(image_tower(*layers)), tmp_path / "float")
    made = quantize(broken, tmp_path / "kept", "image=w8a8", samples=4, engine="aimet").manifest.image
    assert made.quantized.kept == ("4",)
    assert made.quantized.mean_cosine > 0.95
    monkeypatch.setattr(room, "MOST_KEPT", 0)
    monkeypatch.setattr(room, "COLLAPSED", room.GOOD)  # it was below: a layer was kept
    with pytest.raises(ExportError, match="The image tower collapses in w8a8: mean cosine"):
        quantize(broken, tmp_path / "w8a8", "image=w8a8", samples=4, engine="aimet")
    assert not (tmp_path / "w8a8" / MANIFEST).exists()


@needs_aimet
def test_the_command_prints_nothing_but_its_own(whole, tmp_path, capsys, monkeypatch) -> None:
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    monkeypatch.setattr(cache, "cached_export", lambda name, **options: whole)
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    loggers = [logging.getLogger(name) for name in ("Quant", "Utils")]
    for logger in loggers:
        logger.addHandler(listener)
    arguments = ["--engine", "aimet", "--precision", "text=w8a16", "--samples", "4", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "efficientvit_m0_text_s", *arguments])
    assert not ended.value.code
    made = json.loads(capsys.readouterr().out)
    assert made["text"]["quantized"]["engine"].startswith("aimet-onnx ")
    folder = Path("exported/efficientvit_m0_text_s-image=float+text=w8a16-aimet")
    assert load_artifact(folder).manifest.text.quantized.precision == "w8a16"
    assert told == []
    logging.getLogger("Quant").info("heard")
    assert told == ["heard"]  # it would have been
    for logger in loggers:
        logger.removeHandler(listener)


@needs_compiler
def test_the_npus_compiler_takes_it_and_computes_the_same(quantized, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path))
    target = QnnTarget("XR2 Gen 2")
    tower = "image" if quantized.manifest.precision == "w8a16" else "text"  # one each: it takes seconds
    file = quantized.path(tower)
    (sample, *_) = held_out_inputs(CONTRACT, tower)
    emulated = target.infer(target.compile(file, tower), {tower: sample})[f"{tower}_embedding"][0]
    target.close()
    (expected,) = run_onnx(str(file), [sample])[0]
    assert emulated @ expected / np.linalg.norm(emulated) / np.linalg.norm(expected) > 0.99
