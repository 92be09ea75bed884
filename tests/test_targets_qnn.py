"""The offline Snapdragon target: real compilations and emulations of small graphs, and its faults."""

from __future__ import annotations

import io
import json
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import sweep_fakes
import torch
from bad_models import gelu, quantised_padding, quantised_product
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from qnn_compiler import needs_compiler
from rich.console import Console
from timm.models.efficientvit_mit import LiteMLA
from tiny import tiny_model

from lpcvc_zoo import build, evaluate, export
from lpcvc_zoo.bench.sweep import SweepOptions, run
from lpcvc_zoo.cli import main
from lpcvc_zoo.cli.profiles import print_profiles
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import MissingExtraError, TargetError, UnknownNameError
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.exporting.modules import linear_attention
from lpcvc_zoo.exporting.onnx import export_module
from lpcvc_zoo.exporting.parity import agreement
from lpcvc_zoo.exporting.quantize import quantize
from lpcvc_zoo.exporting.rewrites import SETS
from lpcvc_zoo.files import CACHE_VARIABLE
from lpcvc_zoo.ingraph import resizer
from lpcvc_zoo.model import unit_length
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.targets import get_target
from lpcvc_zoo.targets.base import FP16, Profile
from lpcvc_zoo.targets.qnn import build as qnn_build
from lpcvc_zoo.targets.qnn import target as qnn_target
from lpcvc_zoo.targets.qnn.devices import DEVICES, find_device
from lpcvc_zoo.targets.qnn.schematic import SchematicError, read_traffic
from lpcvc_zoo.targets.qnn.target import QnnTarget

RULES, SAMPLE = get_contract("lpcvc2026"), get_contract("lpcvc2026_sample")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


# Devices


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("XR2 Gen 2", "XR2 Gen 2"),
        ("xr2 gen 2 (proxy)", "XR2 Gen 2"),
        ("Snapdragon 8 Elite", "Snapdragon 8 Elite"),
        (" 8 elite gen 5 ", "Snapdragon 8 Elite Gen 5"),
        ("SM8650", "Snapdragon 8 Gen 3"),
    ],
)
def test_devices_are_found_by_name_and_alias(name: str, found: str) -> None:
    assert find_device(name).name == found


def test_an_unknown_device_gets_suggestions() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean .*'Snapdragon 8 Gen 3'"):
        find_device("Snapdragon 8 Gen 33")


def test_no_two_devices_share_a_name_or_a_chip() -> None:
    names = [name.casefold() for device in DEVICES for name in (device.name, *device.aliases)]
    assert len(set(names)) == len(names)
    assert len({device.soc_model for device in DEVICES}) == len(DEVICES)


# The schematic


def _operation(opid: int, read: int, written: int, vtcm_read: int, vtcm_written: int, is_dma: int) -> str:
    return (
        f'{{"opid" : {opid:#018x} , "dram_read": {read} , "dram_write": {written} , '
        f'"vtcm_read": {vtcm_read} , "vtcm_write": {vtcm_written}, "is_dma": {is_dma}}},'
    )


OPERATIONS = "\n".join(
    [
        _operation(0x100000011, 1000, 0, 0, 1000, 1),
        _operation(0x200000011, 0, 0, 30, 7, 0),
        _operation(0x300000099, 0, 64, 64, 0, 1),
    ]
)
SCHEMATIC = """\
graph_before_optimization = { # :::BEGIN:graph_before_optimization:::
\t0x0000000000000011: {
\t\t'operation':'q::QNN_MatMul',
\t\t'inputs' : [
\t\t\t(0x2,0),
\t\t],
\t},
}
graph_after_optimization = {
\t0x0000000000000011: {
\t\t'operation':'q::ConvLayer',
\t},
}
bandwidth_information = [
@OPERATIONS@
]
qnn_name_translations = {
0x0000000000000011: 'node_MatMul_3',
}
opdesc_map ={
  '#1': opdesc( 0x100000011, "q::ConvLayer.opt.weights_to_vtcm", ptr=0x1, runlist_pos = 0,
  '#2': opdesc( 0x200000011, "q::ConvLayer", ptr=0x1, runlist_pos = 1,
  '#3': opdesc( 0x300000099, "@Spill", ptr=0x1, runlist_pos = 2,
}
""".replace("@OPERATIONS@", OPERATIONS)


def test_a_schematic_is_summed_up_in_all_and_by_layer() -> None:
    traffic = read_traffic(SCHEMATIC.splitlines())
    assert (traffic.dram_bytes, traffic.vtcm_bytes, traffic.spill_bytes) == (1064, 1101, 64)
    assert (traffic.ops, traffic.dma_ops) == (3, 2)
    assert traffic.layers is not None
    first, other = traffic.layers
    assert (first.name, first.type) == ("node_MatMul_3", "MatMul")
    assert (first.dram_read_bytes, first.vtcm_read_bytes, first.vtcm_write_bytes) == (1000, 30, 1007)
    assert (first.ops, first.dma_ops) == (2, 1)
    assert (other.name, other.type, other.dram_write_bytes) == (None, None, 64)


def test_without_the_list_of_compiled_operations_only_the_spill_is_unknown() -> None:
    traffic = read_traffic(SCHEMATIC.partition("opdesc_map")[0].splitlines())
    assert traffic.spill_bytes is None
    assert traffic.ops == 3


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "\x00\x7fELF\x02 not a text \ufffd\n" * 3,
        SCHEMATIC.replace("bandwidth_information", "bandwidths"),
        SCHEMATIC.replace('"dram_read"', '"ddr_read"'),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": -7'),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": 007'),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": 1.5e6'),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": 7' + 5000 * "0"),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": 10 MB'),
        SCHEMATIC.replace('"vtcm_write": 7', '"unit": "KB", "vtcm_write": 7'),
        SCHEMATIC.replace('"vtcm_write": 7', '"vtcm_write": 1, "vtcm_write": 7'),
        SCHEMATIC.replace('"is_dma": 1', '"is_dma": 64'),
        SCHEMATIC[: SCHEMATIC.index('"dram_read": 0')] + "\n",
        SCHEMATIC[: SCHEMATIC.index('{"opid" : 0x0000000300000099')],
    ],
    ids=[
        "empty", "binary", "no section", "other field", "no number", "octal", "exponent", "endless",
        "unit", "unit beside", "twice", "no flag", "cut off", "cut off between lines",
    ],
)  # fmt: skip
def test_another_form_of_schematic_is_an_error_and_no_number(damaged: str) -> None:
    with pytest.raises(SchematicError):
        read_traffic(damaged.splitlines())


# What is installed


@needs_compiler
def test_the_target_is_listed_and_made_without_loading_native_code() -> None:
    code = """
import sys
from lpcvc_zoo.targets import get_target, list_targets
assert "qnn" in list_targets()
print(get_target("qnn", device="XR2 Gen 2").rewrites, "onnxruntime_qnn" in sys.modules)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["npu", "False"]


def test_a_missing_package_is_an_error_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    _pretend_linux(monkeypatch)
    monkeypatch.setattr(qnn_target, "version", missing)
    with pytest.raises(MissingExtraError, match=r"onnxruntime-qnn.*pip install 'lpcvc-zoo\[qnn\]'"):
        get_target("qnn")


def test_another_version_is_an_error_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_linux(monkeypatch)
    monkeypatch.setattr(qnn_target, "version", lambda package: "1.18.0")
    with pytest.raises(TargetError, match=r"expected version 2\.7\.0.* got 1\.18\.0.*lpcvc-zoo\[qnn\]"):
        get_target("qnn")


def test_another_system_is_an_error_that_says_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(
        TargetError, match=r"needs Linux on x86-64.*pip install 'lpcvc-zoo\[qnn\]'.* on arm64"
    ):
        get_target("qnn")


def _pretend_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


# Graphs


def _graph(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    output: list[int | None],
    weights: dict[str, np.ndarray] | None = None,
    dtype: int = TensorProto.FLOAT,
    output_dtype: int | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", output_dtype or dtype, output)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tower.onnx"
    onnx.save(proto, path)
    return path


def _node(kind: str, inputs: str, output: str, name: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=name)


def _good(folder: Path, scale: float = 1.0) -> Path:
    weights = (np.arange(32, dtype=np.float32).reshape(8, 4) - 16) / 16 * np.float32(scale)
    nodes = [_node("MatMul", "x w", "m", "mix"), _node("Relu", "m", "y", "rectify")]
    return _graph(folder, nodes, {"x": [1, 8]}, [1, 4], {"w": weights})


X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


@pytest.fixture
def target() -> QnnTarget:
    return QnnTarget("XR2 Gen 2", limit_s=120)


@needs_compiler
def test_a_tower_compiles_to_a_binary_with_an_estimate_and_no_latency(
    target: QnnTarget, tmp_path: Path
) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    profile = target.profile(compiled)
    assert Path(compiled.reference).is_file()
    assert (profile.target, profile.device) == ("qnn", "XR2 Gen 2")
    assert profile.latency is None
    assert profile.load_ms is None
    assert profile.peak_memory_bytes is None
    assert profile.file_bytes == Path(compiled.reference).with_name("context_qnn.bin").stat().st_size > 0
    traffic = profile.traffic
    assert traffic is not None
    assert traffic.dram_read_bytes >= 8 * 4  # the input at least
    assert traffic.spill_bytes == 0
    assert traffic.layers is None


@needs_compiler
def test_layers_are_given_where_asked_for_and_add_up(tmp_path: Path) -> None:
    target = QnnTarget(operators=True)
    traffic = target.profile(target.compile(_good(tmp_path), "image")).traffic
    assert traffic is not None
    assert traffic.layers
    for field in ("dram_read_bytes", "dram_write_bytes", "vtcm_read_bytes", "vtcm_write_bytes", "ops"):
        assert sum(getattr(layer, field) for layer in traffic.layers) == getattr(traffic, field)
    assert any(layer.name and layer.name.startswith("mix") for layer in traffic.layers)


@needs_compiler
def test_every_node_is_judged_and_refusals_are_named_in_the_compilers_words(
    target: QnnTarget, tmp_path: Path
) -> None:
    nodes = [
        _node("Relu", "x", "r", "rectify"), _node("Erf", "r", "e", "bare_erf"),
        _node("Add", "e e", "y", "double_it"),
    ]  # fmt: skip
    path = _graph(tmp_path, nodes, {"x": [1, 8]}, [1, 8])
    verdict = target.check(path)
    assert {node.name: node.accepted for node in verdict.nodes} == {
        "rectify": True, "bare_erf": False, "double_it": True,
    }  # fmt: skip
    assert verdict.error is not None
    with pytest.raises(TargetError, match=r"XR2 Gen 2 refuses 1 of 3 nodes: bare_erf \(Erf\)\.") as caught:
        target.compile(path, "text")
    assert "Its own words: Unsupported nodes in QNN EP: { name: bare_erf, type: Erf }" in str(caught.value)


@needs_compiler
def test_a_gelu_with_other_constants_is_silently_taken_for_a_gelu(target: QnnTarget, tmp_path: Path) -> None:
    """Why lint calls it an error: nobody else says a word."""
    onnx.save(gelu(root=1.0), tmp_path / "tower.onnx")
    assert target.check(tmp_path / "tower.onnx").words == ()
    emulated = target.infer(target.compile(tmp_path / "tower.onnx", "image"), {"x": X[:1]})["y"]
    x = torch.from_numpy(X[:1])
    np.testing.assert_allclose(emulated, torch.nn.functional.gelu(x), atol=2e-3)
    assert np.abs(emulated - (x * (1 + torch.erf(x)) / 2).numpy()).max() > 0.02


@needs_compiler
@pytest.mark.parametrize(("high", "padding"), [(0.5, 0.5), (1.0, 1.0)])
def test_padding_is_clipped_to_the_range_of_what_is_padded(
    target: QnnTarget, tmp_path: Path, high: float, padding: float
) -> None:
    onnx.save(quantised_padding(1.0, high), tmp_path / "tower.onnx")
    emulated = target.infer(target.compile(tmp_path / "tower.onnx", "image"), {"x": np.abs(X[:1]) * high})
    np.testing.assert_allclose(emulated["y"][0, 8:], padding, atol=1e-3)


@needs_compiler
@pytest.mark.parametrize(
    ("rows", "device", "right"),
    [
        (1, "XR2 Gen 2", False),
        (8, "XR2 Gen 2", True),
        (1, "Snapdragon 8 Gen 2", True),
    ],
)
def test_products_of_few_rows_are_silently_wrong_on_one_chip(
    tmp_path: Path, rows: int, device: str, right: bool
) -> None:
    """Why lint calls it an error. The first product is right, and so are 32 columns of the others."""
    onnx.save(quantised_product(rows), tmp_path / "tower.onnx")
    target = QnnTarget(device)
    assert target.check(tmp_path / "tower.onnx").words == ()
    x = np.random.default_rng(0).uniform(0, 1, (1, 2, 16, rows + 64)).astype(np.float32)
    emulated = target.infer(target.compile(tmp_path / "tower.onnx", "image"), {"x": x})["y"]
    expected = x[..., :rows].swapaxes(2, 3) @ x[..., rows:]
    np.testing.assert_allclose(emulated[:, :1], expected[:, :1], atol=0.1)
    np.testing.assert_allclose(emulated[..., :32], expected[..., :32], atol=0.1)
    assert (np.abs(emulated - expected).max() < 0.1) == right


@needs_compiler
def test_a_good_tower_has_a_verdict_without_refusals(target: QnnTarget, tmp_path: Path) -> None:
    verdict = target.check(_good(tmp_path))
    assert verdict.error is None
    assert verdict.refused == ()
    assert len(verdict.nodes) == 2


@needs_compiler
@pytest.mark.parametrize(
    ("nodes", "inputs", "output", "dtype", "said"),
    [
        ([_node("Add", "x x", "y", "sum")], {"x": [1, 8]}, [1, 8], TensorProto.DOUBLE, r"sum \(Add\).*3110"),
        ([_node("NonZero", "x", "y", "find")], {"x": [1, 8]}, [2, None], TensorProto.FLOAT, r"NonZero"),
        (
            [_node("Relu", "x", "y", "r")], {"x": ["N", 8]}, ["N", 8], TensorProto.FLOAT,
            "Inputs of dynamic shape: x; expected static shapes",
        ),
    ],
    ids=["float64", "NonZero", "dynamic batch"],
)  # fmt: skip
def test_what_the_npu_can_not_run_is_an_error_that_says_so(
    target: QnnTarget, tmp_path: Path, nodes, inputs, output, dtype, said: str
) -> None:
    out = TensorProto.INT64 if nodes[0].op_type == "NonZero" else None
    path = _graph(tmp_path, nodes, inputs, output, dtype=dtype, output_dtype=out)
    with pytest.raises(TargetError, match=said):
        target.compile(path, "image")


@needs_compiler
def test_a_file_that_is_no_model_is_an_error(target: QnnTarget, tmp_path: Path) -> None:
    path = tmp_path / "tower.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(TargetError, match="can't compile it"):
        target.compile(path, "image")
    with pytest.raises(TargetError, match=r"missing\.onnx is missing"):
        target.compile(tmp_path / "missing.onnx", "image")


@needs_compiler
@pytest.mark.parametrize(("kind", "inputs"), [("Pad", "f ends one"), ("Clip", "f zero one")])
def test_what_is_left_in_float_needs_numbers_that_no_quantised_node_shares(
    target: QnnTarget, tmp_path: Path, kind: str, inputs: str
) -> None:
    """The compiler's words for it name others, too: a hard swish nearby, which it takes."""
    step = {"step": np.float32(1 / 65535), "none": np.array(0, np.uint16)}
    weights = {"one": np.float32(1), "zero": np.float32(0), "ends": np.array([0, 0, 0, 0])} | step
    shared = [
        _node("Relu", "x", "f", "float"), _node("QuantizeLinear", "one step none", "q", "quantise"),
        _node("DequantizeLinear", "q step none", "d", "dequantise"), _node("Add", "f d", "a", "quantised"),
    ]  # fmt: skip
    for number, refused in (("one", set()), ("d", {kind})):
        left = _node(kind, inputs.replace("one", number), "b", "left")
        nodes = [*shared, left, _node("Add", "a b", "y", "sum")]
        path = _graph(tmp_path, nodes, {"x": [1, 8]}, [1, 8], {n: np.asarray(w) for n, w in weights.items()})
        proto = onnx.load(path)
        proto.opset_import[0].version = 21
        onnx.save(proto, path)
        assert {node.type for node in target.check(path).refused} == refused


# Quantised towers


@needs_compiler
@pytest.mark.slow
def test_a_tower_that_onnx_runtime_quantised_compiles_and_tells_what_stays_in_fp16(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = export(tiny_model(SAMPLE.name), tmp_path / "float", rewrites="npu")
    artifact = quantize(whole, tmp_path / "w8a16", "image=w8a16+text=float", samples=8)
    target = QnnTarget(operators=True)
    compiled = target.compile(artifact.path("image"), "image")
    photos = np.concatenate([SAMPLE.prepare_image(path) for path in sample_photos(2)])
    emulated = target.infer(compiled, {"image": photos})["image_embedding"]
    session = onnxruntime.InferenceSession(str(artifact.path("image")), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"image": photo[None]})[0] for photo in photos])
    assert (emulated * expected).sum(axis=1).min() > 0.999
    assert not np.array_equal(emulated, session.run(None, {"image": photos[:1]})[0])
    profiles = {"image": target.profile(compiled)}
    units = {node.type: node.unit for node in profiles["image"].operators}
    assert (units["Conv"], units["Gemm"]) == ("NPU, integer", "NPU, integer")
    assert (units["Clip"], units["Div"]) == (FP16, FP16)  # the host's pixels, and the final division
    print_profiles(profiles, operators=True)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"image tower: \d+ of \d+ nodes stay in fp16: .* \(Div\)", said)
    assert "(Conv)" not in said
    assert target.profile(target.compile(artifact.path("text"), "text")).operators is None


# What is kept


def _forbid_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise AssertionError("native code was run")

    monkeypatch.setattr(qnn_build.Child, "ask", refuse)


@needs_compiler
def test_a_compiled_tower_is_kept_by_content_and_device(
    target: QnnTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    elsewhere = QnnTarget("Snapdragon 8 Elite").compile(_good(tmp_path), "image")
    other = target.compile(_good(tmp_path / "other", scale=0.5), "image")
    assert len({compiled.reference, elsewhere.reference, other.reference}) == 3
    _forbid_native_code(monkeypatch)
    assert QnnTarget("XR2 Gen 2 (Proxy)").compile(_good(tmp_path / "same"), "image") == compiled


@needs_compiler
@pytest.mark.parametrize("left", [lambda whole: whole[: len(whole) // 2], lambda whole: b"\xff"])
@pytest.mark.parametrize("name", ["context_qnn.bin", "context.onnx", "compiled.json"])
def test_a_damaged_build_is_made_again(target: QnnTarget, tmp_path: Path, name: str, left) -> None:
    path = _good(tmp_path)
    compiled = target.compile(path, "image")
    damaged = Path(compiled.reference).with_name(name)
    whole = damaged.read_bytes()
    damaged.write_bytes(left(whole))
    with pytest.raises(TargetError, match=r"missing or damaged\. Compile the image tower again"):
        QnnTarget().profile(compiled)
    assert target.compile(path, "image") == compiled
    assert damaged.read_bytes() == whole


@needs_compiler
def test_a_failed_compilation_leaves_nothing_behind(target: QnnTarget, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        target.compile(_graph(tmp_path, [_node("Erf", "x", "y", "e")], {"x": [1, 8]}, [1, 8]), "image")
    assert list((tmp_path / "cache" / "qnn").iterdir()) == []


@needs_compiler
def test_an_unreadable_schematic_costs_the_estimate_and_nothing_else(
    target: QnnTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_units = [re.sub('("dram_read": [0-9]+)', r"\1 KB", line) for line in SCHEMATIC.splitlines()]
    monkeypatch.setattr(qnn_build, "read_traffic", lambda lines: read_traffic(with_units))
    compiled = target.compile(_good(tmp_path), "image")
    profile = target.profile(compiled)
    assert profile.traffic is None
    assert "No static estimate of the image tower: " in caplog.text
    assert profile.file_bytes
    assert target.infer(compiled, {"x": X[:1]})["y"].shape == (1, 4)


# The command line


@pytest.mark.parametrize("readable", ["image", "text"])
def test_one_unreadable_schematic_hides_nothing_of_the_other_tower(
    readable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpcvc_zoo.cli.profiles.out", Console(width=120))
    facts: dict[str, Any] = {"target": "qnn", "device": "XR2 Gen 2", "runtime_versions": {}}
    traffic = {readable: read_traffic(SCHEMATIC.splitlines())}
    profiles = {tower: Profile(file_bytes=2_000_000, traffic=traffic.get(tower), **facts) for tower in TOWERS}
    print_profiles(profiles, operators=True)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [readable, "2.0", "0.0", "0.0", "0.0", "0.0", "3", "2"] in shown
    assert any(line[:2] != [readable, "2.0"] and line[2:] == ["-"] * 6 for line in shown)
    assert [readable, "0.00", "0.00", "2", "MatMul", "node_MatMul_3"] in shown


@needs_compiler
@pytest.mark.slow
def test_the_command_line_shows_what_moves_and_never_a_millisecond(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*more: str) -> str:
        command = ["profile", "efficientvit_m0_text_s", "--contract", SAMPLE.name, "--target", "qnn", *more]
        with pytest.raises(SystemExit):
            main(command)
        shown = capsys.readouterr()
        return shown.out + shown.err

    monkeypatch.setenv("COLUMNS", "80")
    table = said("--device", "XR2 Gen 2", "--operators")
    assert re.search(r"spilled +ops +DMA\n", table)
    assert "VTCM MB" in table
    assert "FullyConnected" in table
    assert "nothing ran" in table
    assert " ms" not in table
    assert "Did you mean" in said("--device", "Snapdragon 8 Gen 33")


@needs_compiler
@pytest.mark.slow
def test_a_sweep_of_both_targets_has_a_cost_of_each_and_evaluate_scores_the_emulated_npu(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "efficientnet_lite0_96_text_xxs"
    model, npu = [name, "--contract", SAMPLE.name], ["--target", "qnn", "--device", "XR2 Gen 2"]
    swept = ["--models", *model, "--untrained", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", *swept, "--target", "onnxruntime", *npu])
    found = json.loads((tmp_path / "results.json").read_text())["rows"]
    cpu, static = (next(row for row in found if row["target"] == name) for name in ("onnxruntime", "qnn"))
    for tower in TOWERS:
        assert (cpu[tower]["latency"] is None, cpu[tower]["traffic"] is None) == (False, True)
        assert (static[tower]["latency"] is None, static[tower]["traffic"] is None) == (True, False)
    assert (cpu["rewrites"], set(static["rewrites"])) == ([], set(SETS["npu"]))
    capsys.readouterr()
    kept = tmp_path / "emulated.npz"
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", *model, *npu, "--limit", "1", "--json", "--save-embeddings", str(kept)])
    assert json.loads(capsys.readouterr().out)["dataset"] == "photos, 1 of 163"
    data = load_dataset("photos").spread(1)
    evaluate(build(name, contract=SAMPLE), data, save_embeddings=tmp_path / "torch.npz")
    emulated, own = np.load(kept), np.load(tmp_path / "torch.npz")
    for key in ("image_embeddings", "text_embeddings"):
        assert (emulated[key] * own[key]).sum(axis=1).min() > 0.999
        assert not np.array_equal(emulated[key], own[key])  # as the NPU computes it


# Emulation


@needs_compiler
def test_the_emulated_tower_agrees_with_onnx_runtime_and_runs_no_sample_twice(
    target: QnnTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _good(tmp_path)
    compiled = target.compile(path, "image")
    emulated = target.infer(compiled, {"x": X})["y"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in X])
    assert emulated.dtype == np.float32
    np.testing.assert_allclose(emulated, expected, atol=2e-3)  # fp16 in between
    assert not np.array_equal(emulated, expected)
    target.close()
    _forbid_native_code(monkeypatch)
    np.testing.assert_array_equal(target.infer(compiled, {"x": X[::-1]})["y"], emulated[::-1])
    with pytest.raises(AssertionError, match="native code was run"):
        target.infer(compiled, {"x": X[:1] + 1})


@needs_compiler
@pytest.mark.parametrize("left", [0, 1, 2, 100, -1])
def test_a_damaged_sample_is_emulated_again(target: QnnTarget, tmp_path: Path, left: int) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    emulated = target.infer(compiled, {"x": X[:1]})["y"]
    (kept,) = Path(compiled.reference).parent.glob("samples/*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:left])
    np.testing.assert_array_equal(target.infer(compiled, {"x": X[:1]})["y"], emulated)
    assert kept.read_bytes() == whole


@needs_compiler
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"z": X}, r"image tower: expected inputs \['x'\], got \['z'\]"),
        ({"x": X.astype(np.float64)}, "expected dtype float32, got float64"),
        ({"x": X[:, :4]}, r"expected shape \[1, 8\] or a longer batch axis"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(
    target: QnnTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs, said: str
) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    _forbid_native_code(monkeypatch)
    with pytest.raises(TargetError, match=said):
        target.infer(compiled, inputs)


@needs_compiler
def test_a_tower_of_another_device_or_target_is_refused(target: QnnTarget, tmp_path: Path) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    with pytest.raises(TargetError, match="compiled for qnn on XR2 Gen 2, not for qnn on Snapdragon X"):
        QnnTarget("Snapdragon X Elite").profile(compiled)
    with pytest.raises(TargetError, match="compiled for onnxruntime on"):
        target.profile(get_target().compile(_good(tmp_path), "image"))


# Native code that crashes or hangs: a package of the same name, seen first by the child process

FAULTS = {
    "crash": ("import os; os.abort()", r"ended early, killed by SIGABRT \(a crash in native code\)"),
    "exit": ("import os; os._exit(3)", "ended early, exit status 3"),
    "hang": ("import time; time.sleep(600)", "no answer after 3 s; stopped"),
    "error": ("raise OSError('libQnnHtp.so: cannot open')", "OSError: libQnnHtp.so: cannot open"),
}


def _sabotage(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    folder.mkdir()
    (folder / "onnxruntime_qnn.py").write_text(f"def get_library_path():\n    {code}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS)
def test_a_crash_or_a_hang_of_the_compiler_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    code, said = FAULTS[fault]
    _sabotage(tmp_path / "native", monkeypatch, code)
    with pytest.raises(TargetError, match=said):
        QnnTarget(limit_s=3 if fault == "hang" else 60).compile(_good(tmp_path), "image")
    assert list((tmp_path / "cache" / "qnn").iterdir()) == []


@needs_compiler
def test_a_crash_of_the_compiler_is_a_row_of_a_sweep_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sabotage(tmp_path / "native", monkeypatch, FAULTS["crash"][0])
    monkeypatch.setenv(sweep_fakes.FOLDER, str(tmp_path))
    outcome = run(
        SweepOptions(out=tmp_path / "out"),
        tools=sweep_fakes.TOOLS,
        entries=[sweep_fakes.entry("alpha", 1.0)],
        targets=[QnnTarget(limit_s=60), sweep_fakes.FakeTarget()],
        console=Console(file=io.StringIO()),
    )
    rows = {row.target: row for row in outcome.rows}
    assert re.search(r"XR2 Gen 2: .*ended early, killed by SIGABRT", str(rows["qnn"].error))
    assert rows["qnn"].image is None
    assert rows["fake"].error is None


@needs_compiler
def test_a_crash_of_the_emulator_loses_no_sample_that_was_done(
    target: QnnTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = target.compile(_good(tmp_path), "image")
    done = target.infer(compiled, {"x": X[:2]})["y"]
    target.close()
    with monkeypatch.context() as broken:
        _sabotage(tmp_path / "native", broken, FAULTS["crash"][0])
        with pytest.raises(TargetError, match=r"emulating it for XR2 Gen 2: .*SIGABRT"):
            target.infer(compiled, {"x": X})
        np.testing.assert_array_equal(target.infer(compiled, {"x": X[:2]})["y"], done)
    np.testing.assert_array_equal(target.infer(compiled, {"x": X})["y"][:2], done)


# fp16, as the emulated NPU computes it


@needs_compiler
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e3])
def test_embeddings_of_any_size_come_out_at_unit_length(
    target: QnnTarget, tmp_path: Path, size: float
) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return unit_length(x * size)

    x = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    export_module(Scaled(), x, "x", "y", tmp_path / "tower.onnx")
    emulated = target.infer(target.compile(tmp_path / "tower.onnx", "image"), {"x": x})["y"][0]
    assert np.linalg.norm(emulated) == pytest.approx(1, abs=RULES.embedding.unit_length_tolerance)
    assert emulated @ x[0] / np.linalg.norm(x) > 0.999


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "interpolation", "size"),
    [("XR2 Gen 2", "bicubic", 224), ("XR2 Gen 2", "bicubic", 96), ("Snapdragon 8 Elite", "bilinear", 256)],
)
def test_the_canvas_resize_stays_near_pils_on_the_npu(
    tmp_path: Path, device: str, interpolation: str, size: int
) -> None:
    photos = [Image.open(path).convert("RGB") for path in sample_photos(40)]
    wide = next(photo for photo in photos if photo.width > 1.2 * photo.height)
    high = next(photo for photo in photos if photo.height > 1.2 * photo.width)
    canvases = np.concatenate([RULES.prepare_image(photo) for photo in (wide, high)])
    export_module(
        resizer(RULES.image, size, interpolation), canvases[:1], "image", "resized", tmp_path / "r.onnx"
    )
    target = QnnTarget(device)
    emulated = target.infer(target.compile(tmp_path / "r.onnx", "image"), {"image": canvases})["resized"]
    for canvas, resized in zip(canvases, emulated, strict=True):
        content = canvas.transpose(1, 2, 0).astype(np.uint8)
        rows, columns = (np.flatnonzero(content.any(axis=axes)).max() + 1 for axes in ((1, 2), (0, 2)))
        pil = Image.fromarray(content[:rows, :columns]).resize(
            (size, size),
            {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation],
        )
        error = np.abs(resized.transpose(1, 2, 0) - np.asarray(pil, np.float32))
        assert error.mean() < 1
        assert error.max() < 4


@needs_compiler
def test_linear_attention_is_the_same_on_the_npu_once_it_is_rewritten(
    target: QnnTarget, tmp_path: Path
) -> None:
    """The one rewrite of the npu set that neither of the models below has."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(LiteMLA(32, 32, dim=8)).eval()
    x = np.random.default_rng(0).normal(size=(1, 32, 6, 7)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    assert linear_attention(module) == 1
    export_module(module, x, "x", "y", tmp_path / "tower.onnx")
    emulated = target.infer(target.compile(tmp_path / "tower.onnx", "image"), {"x": x})["y"]
    assert agreement([expected], [emulated]).min_cosine > 0.999


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "contract", "device"),
    [
        ("efficientvit_m0_text_s", SAMPLE, "XR2 Gen 2"),  # windows; an export that other tests share
        ("efficientnet_lite0_128_text_xxs.conse_minilm", RULES, "Snapdragon 8 Elite"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_emulated_embeddings_of_npu_exports_agree_with_torch_on_real_photos_and_captions(
    cache: Path, name: str, contract, device: str
) -> None:
    model = build(name, contract=contract)
    artifact = cached_export(name, contract=contract.name, rewrites="npu")
    target = QnnTarget(device)
    image = np.concatenate([contract.prepare_image(path) for path in sample_photos(2)])
    text = contract.prepare_text(sample_captions(3))
    with torch.inference_mode():
        expected = {"image": model.encode_image(image).numpy(), "text": model.encode_text(text).numpy()}
    for tower, inputs in zip(TOWERS, (image, text), strict=True):
        emulated = target.infer(target.compile(artifact.path(tower), tower), {tower: inputs})[
            f"{tower}_embedding"
        ]
        contract.check_embedding(emulated)
        cosine = (emulated * expected[tower]).sum(axis=1) / np.linalg.norm(emulated, axis=1)
        assert cosine.min() > 0.999
