"""Lint of files as others' tools leave them: weights elsewhere, functions, other types, odd options."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bad_models import FLOAT, INT64, constants, floats, int64_ids, model, node
from onnx import TensorProto, helper, numpy_helper
from tiny import tiny_model

from lpcvc_zoo import registry
from lpcvc_zoo.cli import main
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting import cache
from lpcvc_zoo.exporting.lint import Report, boundary, lint
from lpcvc_zoo.exporting.lint.graph import Graph
from lpcvc_zoo.exporting.onnx import export


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def named(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings} - {"contract"}


def masked(folder: Path) -> Path:
    """A mask of minus infinity that lies in another file."""
    mask = np.full((1, 1024), -np.inf, np.float32)
    proto = floats(node("Add", "x mask", "y", "add"), shape=(1, 1024), mask=mask)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    return folder / "model.onnx"


def linked(path: Path) -> None:
    data = path.parent / "m.data"
    data.symlink_to(shutil.move(data, path.parent.parent / "blob"))


def moved_up(path: Path) -> None:
    shutil.move(path.parent / "m.data", path.parent.parent / "m.data")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../m.data"
    path.write_bytes(proto.SerializeToString())


def spelt_out(path: Path) -> None:
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "./m.data"
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("put", "found"), [(linked, set()), (moved_up, {"external-data"}), (spelt_out, set())]
)
def test_weights_behind_a_link_or_in_another_folder_are_looked_at(
    put: Callable[[Path], None], found: set[str], tmp_path: Path
) -> None:
    (tmp_path / "snapshot").mkdir()
    path = masked(tmp_path / "snapshot")
    put(path)
    assert named(lint(path)) == {"infinite-constant"} | found


def test_weights_that_are_cut_short_are_a_finding_beside_all_others(tmp_path: Path) -> None:
    path = masked(tmp_path)
    (tmp_path / "m.data").write_bytes(bytes(10))
    (finding,) = [finding for finding in lint(path).findings if finding.rule == "external-data"]
    assert "can't be read" in finding.message
    assert "(4096) exceeds available data (10 bytes" in finding.message


def test_weights_in_a_file_that_is_not_named_are_a_finding(tmp_path: Path) -> None:
    proto = floats(node("Add", "x mask", "y", "add"), mask=np.zeros(2048, np.float32), shape=(1, 2048))
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    (finding,) = [finding for finding in lint(saved(proto, tmp_path)).findings if finding.level == "error"]
    assert "no rule saw their numbers: mask is said to lie in another file" in finding.message


def cut_short(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = b"?"


def of_no_type(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = 99


def in_a_circle(proto: onnx.ModelProto) -> None:
    soft = node("Softmax", "p", "q", "soft")
    proto.graph.node.extend([node("Add", "r x", "p", "sum"), node("Identity", "p", "r", "back"), soft])


def made_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(node("Relu", "x", "y", "again"))


def without_branches(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.extend(constants(so=np.array(True)))
    proto.graph.node.append(node("If", "so", "z", "either"))


def of_no_value(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(0, node("Constant", "", "k", "hold"))


INVALID = {
    cut_short: "raw_data size (1 bytes) is too small",
    of_no_type: "x is of type 99, which ONNX does not have",
    in_a_circle: "must be topologically sorted",
    made_twice: "'y' has been used as output names multiple times",
    without_branches: "Required attribute 'else_branch' is missing",
    of_no_value: "the Constant k has no value",
}


@pytest.mark.parametrize("spoil", INVALID)
def test_what_onnx_refuses_does_not_pass(spoil: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    proto = floats(node("Add", "x one", "y", "add"), one=1.0)
    spoil(proto)
    problems = "\n".join(lint(saved(proto, tmp_path)).problems)
    assert "ONNX refuses it, so rules may have passed over anything: " in problems
    assert INVALID[spoil] in problems


def old(proto: onnx.ModelProto) -> None:
    proto.ir_version = 3


def unnamed(proto: onnx.ModelProto) -> None:
    proto.graph.name = ""


def untyped(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].ClearField("type")


def not_imported(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.extend([onnx.helper.make_tensor_value_info("z", FLOAT, [1, 8])])
    proto.graph.node.append(node("QuickGelu", "x", "z", "gelu", domain="com.microsoft"))


@pytest.mark.parametrize("loosen", [old, unnamed, untyped, not_imported])
def test_what_only_onnxs_checker_refuses_is_looked_at(loosen, tmp_path: Path) -> None:
    proto = floats(node("Add", "x one", "y", "add"), one=1.0)
    loosen(proto)
    onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert not lint(saved(proto, tmp_path)).problems


def test_a_graph_that_gives_nothing_is_no_model(tmp_path: Path) -> None:
    proto = floats(node("Relu", "x", "y", "relu"))
    del proto.graph.output[:]
    with pytest.raises(ExportError, match="at least one node and one output"):
        lint(saved(proto, tmp_path))


def test_what_a_constant_node_holds_may_lie_outside_as_well(tmp_path: Path) -> None:
    mask = numpy_helper.from_array(np.full((1, 1024), -np.inf, np.float32))
    proto = floats(
        node("Constant", "", "mask", "hold", value=mask), node("Add", "x mask", "y", "add"), shape=(1, 1024)
    )
    onnx.save(
        proto, tmp_path / "model.onnx",
        save_as_external_data=True, size_threshold=0, location="m.bin", convert_attribute=True,
    )  # fmt: skip
    assert named(lint(tmp_path / "model.onnx")) == {"infinite-constant", "external-data"}  # not called .data


@pytest.mark.parametrize(("kind", "found"), [("Relu", set()), ("Erf", {"erf"})])
def test_functions_of_the_file_itself_are_what_is_in_them(kind: str, found: set[str], tmp_path: Path) -> None:
    proto = floats(node("Act", "x", "y", "act", domain="com.acme"))
    body = [helper.make_node(kind, ["a"], ["b"])]
    proto.functions.append(
        helper.make_function("com.acme", "Act", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    )
    assert named(lint(saved(proto, tmp_path))) == found


def test_axes_that_only_running_tells_are_a_problem_where_the_inputs_are_static(tmp_path: Path) -> None:
    proto = floats(
        node("Cast", "x", "all", "to_numbers", to=INT64),
        node("Compress", "all some", "target", "choose"),
        node("Reshape", "x target", "odd", "reshape"),
        node("ReduceSum", "odd", "y", "sum", keepdims=0),
        shape=(8,), some=np.array([True, False]),
    )  # fmt: skip
    assert "the first is odd of reshape" in "\n".join(lint(saved(proto, tmp_path)).problems)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "length"
    report = lint(saved(proto, tmp_path))
    assert not report.problems  # that it is dynamic is found, and says enough
    assert "dynamic-dimension" in named(report)


@pytest.mark.parametrize(("size", "shown"), [(-1, "'?'"), (0, "0"), ("length", "'length'")])
def test_a_size_that_is_none_is_dynamic(size: int | str, shown: str, tmp_path: Path) -> None:
    proto = floats(node("Relu", "x", "y", "relu"), shape=(1, size))
    (said, _) = [f.message for f in lint(saved(proto, tmp_path)).findings if f.rule == "dynamic-dimension"]
    assert said == f"x has the shape [1, {shown}]"


def half_precision_pixels() -> onnx.ModelProto:
    half = TensorProto.FLOAT16
    return model(
        ("image", half, [1, 3, 224, 224]),
        ("image_embedding", half, [1, 3]),
        [node("ReduceMean", "image axes", "image_embedding", "pool", keepdims=0)],
        constants(axes=np.array([2, 3])),
    )


@pytest.mark.parametrize("make", [int64_ids, half_precision_pixels])
def test_activations_are_measured_in_the_types_that_the_graph_takes(make, tmp_path: Path) -> None:
    report = lint(saved(make(), tmp_path), activations=True)
    assert report.activations
    assert not report.problems


def test_an_input_of_another_kind_of_number_is_named(tmp_path: Path) -> None:
    proto = int64_ids()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT64
    problems = "\n".join(lint(saved(proto, tmp_path), activations=True).problems)
    assert "the input text is uint64, expected int32 or a type that differs in width alone" in problems


def test_activations_that_can_not_be_measured_leave_the_rules_findings(tmp_path: Path) -> None:
    proto = int64_ids()
    proto.graph.node.insert(0, node("Magic", "text", "unused", "magic", domain="com.acme"))
    report = lint(saved(proto, tmp_path), activations=True)
    assert "unsupported-operator" in named(report)
    assert not report.activations
    assert "can't be measured" in "\n".join(report.problems)


def test_an_image_of_bytes_is_no_text() -> None:
    proto = model(
        ("image", TensorProto.UINT8, [1, 8, 8, 3]), ("y", FLOAT, [1, 8, 8, 3]),
        [node("Cast", "image", "y", "cast", to=FLOAT)],
    )  # fmt: skip
    assert boundary.guess_tower(Graph(proto)) == "image"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["lint", *arguments])
    assert ended.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("given", [("--rewrites", "none"), ("--image-size", "96"), ("--text-depth", "0")])
def test_options_of_an_export_are_refused_for_what_is_exported(given, tmp_path: Path, capsys) -> None:
    path = saved(int64_ids(), tmp_path)
    assert f"is made already: expected no {given[0]}" in refused(capsys, str(path), *given)
    export(tiny_model("lpcvc2026_sample"), tmp_path / "made")
    for option in (given, ("--contract", "lpcvc2026")):
        said = refused(capsys, str(tmp_path / "made"), *option)
        assert f"expected no {option[0]}" in said


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_model_of_the_zoo_goes_before_what_has_its_name(kind: str, tmp_path, monkeypatch, capsys) -> None:
    name = registry.list_models()[0]
    made = export(tiny_model("lpcvc2026_sample"), tmp_path / "made")
    monkeypatch.setattr(cache, "cached_export", lambda *_, **__: made)
    monkeypatch.chdir(tmp_path)
    if kind == "file":
        saved(int64_ids(), tmp_path).rename(tmp_path / name)
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["lint", name])
    assert not ended.value.code
    assert "made/image_encoder.onnx" in "".join(capsys.readouterr().out.split())
