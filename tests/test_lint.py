"""Lint: every planted hazard found where it is, nothing found where nothing is, and a command for CI."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from bad_models import (
    CORPUS,
    FLOAT,
    GELUS,
    W,
    attention_over,
    by_channel,
    choice,
    conv,
    filled_mask,
    floats,
    gelu,
    hard_swish,
    model,
    nearest,
    node,
    normalised,
    patches,
    pixels,
    quantised_padding,
    quantised_product,
    quantised_windows,
    scaled,
    three_projections,
    written,
)
from tiny import tiny_model

from lpcvc_zoo.cli import main
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting import lint as room
from lpcvc_zoo.exporting.lint import RULES, Hit, Rule, lint
from lpcvc_zoo.exporting.lint.graph import Graph
from lpcvc_zoo.exporting.onnx import export


@pytest.mark.parametrize("hazard", CORPUS)
def test_every_planted_hazard_is_found_at_its_nodes_with_why_and_cure(hazard: str, tmp_path) -> None:
    planted = CORPUS[hazard]
    report = lint(written(planted, tmp_path), activations=planted.rule in ("fp16-overflow", "fp16-divisor"))
    found = [finding for finding in report.findings if finding.rule == planted.rule]
    assert planted.level in {finding.level for finding in found}
    named = {name for finding in found for name in finding.nodes}
    assert set(planted.nodes) <= named
    assert bool(named) == bool(planted.nodes)
    assert all(finding.why and finding.cure for finding in found)
    assert not report.problems


def test_the_corpus_plants_a_hazard_for_every_rule_that_one_file_can_break() -> None:
    elsewhere = {"file-size", "external-data"}  # planted below: they are about files
    assert {planted.rule for planted in CORPUS.values()} | elsewhere == {rule.name for rule in RULES}


CLEAN = {
    "plain convolution": lambda: pixels(conv("p w", "q", "conv"), w=W),
    "pixels around zero": lambda: scaled(("Mul", 1 / 128), ("Sub", 127 / 128), high=255),
    "pixels of 255 scaled to 1 and no more": lambda: scaled(("Mul", 1 / 255), high=255),
    "normalised by a filter for each channel": lambda: by_channel(np.full((3, 1), 4.0), (-2,) * 3),
    "normalised by a convolution that turns BGR to RGB": lambda: by_channel(4 * np.eye(3)[::-1], (-2,) * 3),
    "normalised patches": lambda: patches(node("Sub", "image half", "p", "shift")),
    "pixels resized by averages, then normalised": lambda: pixels(
        node("MatMul", "p across", "r", "resize"), conv("r w", "q", "conv"),
        across=np.full((224, 8), 1 / 224, np.float32), w=W,
    ),
    "a finite mask and a small epsilon": lambda: floats(
        node("Add", "x mask", "a", "mask"), node("Add", "a eps", "y", "eps"), mask=-100.0, eps=1e-6
    ),
    "a clip's far bound": lambda: floats(node("Clip", "x low high", "y", "clip"), low=0.0, high=3e38),
    "a residual around a convolution": lambda: pixels(
        conv("p w", "a", "first"), conv("a w4", "b", "second"), node("Add", "a b", "q", "residual"),
        w=W, w4=np.zeros((4, 4, 3, 3), np.float32),
    ),
    "what is folded when compiled": lambda: floats(
        node("Shape", "k", "s", "shape"), node("Reshape", "x s", "y", "reshape"),
        k=np.zeros((1, 8), np.float32),
    ),
    "a shape that is computed of static ones": lambda: floats(
        node("Shape", "x", "s", "shape"), node("Gather", "s zero", "rows", "pick"),
        node("Unsqueeze", "rows first", "list", "to_list"), node("Concat", "list rest", "t", "join", axis=0),
        node("Reshape", "x t", "y", "reshape"),
        zero=np.array(0), first=np.array([0]), rest=np.array([-1]),
    ),
    "a body that is never chosen": lambda: choice("Relu", otherwise="Erf"),
    "an ordinary epsilon of an attribute": lambda: normalised("LayerNormalization", 1e-6),
    "padding within the range of what is padded": lambda: quantised_padding(1.0, high=1.0),
    "padding by what is at the edge": lambda: quantised_padding(1.0, high=0.5, mode="edge"),
    "a product of eight rows": lambda: quantised_product(8),
    "of thirty-two columns": lambda: quantised_product(1, columns=32),
    "of one head": lambda: quantised_product(1, heads=1),
    "of 8 bits": lambda: quantised_product(1, kind=np.uint8),
    "one window whose channels are split": lambda: quantised_windows(1),
    "windows cut in two": lambda: quantised_windows(parts=2),
    "windows of 8 bits": lambda: quantised_windows(kind=np.uint8),
    "a hard swish with the gate first": lambda: hard_swish("gate x"),
    "another slope": lambda: hard_swish(alpha=0.2),
    "another middle": lambda: hard_swish(beta=0.6),
    "a hard swish of what was quantised": lambda: hard_swish(quantised=True),
    "257 tokens in three projections": lambda: three_projections(257),
    "a mask whose infinity is cut off before anything runs": lambda: floats(
        node("Div", "one zero", "far", "divide"), node("Min", "far most", "mask", "cut"),
        node("Add", "x mask", "y", "add"), one=1.0, zero=0.0, most=50.0,
    ),
    "a clip that is open above": lambda: floats(
        node("Clip", "x low high", "y", "clip"), low=0.0, high=np.inf
    ),
    "torch's nearest": lambda: nearest("asymmetric", "floor"),
    "nearest at thirds": lambda: nearest("half_pixel", "round_prefer_floor", scale=2.0),
    "an exact GELU": gelu,
    "one halved before": lambda: gelu(GELUS[1]),
    "one whose sum is halved": lambda: gelu(GELUS[2]),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_what_is_no_hazard_is_not_reported(name: str, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(CLEAN[name](), path)
    report = lint(path)
    named = {finding.rule for finding in report.findings} - {"contract"}  # x and y are no contract's names
    assert named == set()


@pytest.mark.parametrize("count", [8, 64, 77, 196, 256])
def test_token_counts_that_are_neither_prime_nor_just_over_a_block_are_not_reported(count, tmp_path) -> None:
    onnx.save(attention_over(count), tmp_path / "model.onnx")
    assert "token-count" not in {finding.rule for finding in lint(tmp_path / "model.onnx").findings}


def test_a_known_contract_is_held_against_names_shapes_and_types(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(CORPUS["misnamed input"].make(), path)
    messages = [finding.message for finding in lint(path).findings if finding.rule == "contract"]
    assert messages == ["the input is called 'pixel_values', lpcvc2026_sample calls it 'image'"]
    wrong = tiny_model("lpcvc2026").contract
    messages = [f.message for f in lint(path, contract=wrong, tower="image").findings if f.rule == "contract"]
    assert any("lpcvc2026 gives [1, 3, 1024, 1024]" in message for message in messages)


def test_raw_pixels_are_fine_for_a_model_that_wants_them_so(tmp_path, capsys) -> None:
    path = written(CORPUS["raw pixels"], tmp_path)
    assert not lint(path, plain_pixels=True).findings
    assert command(capsys, str(path), "--fail-on", "warning")[0] == 1
    assert command(capsys, str(path), "--fail-on", "warning", "--plain-pixels")[0] == 0


@pytest.mark.parametrize(("mask", "findings"), [(-np.inf, 1), (-50.0, 0)])
def test_a_filled_mask_is_found_by_its_number_where_its_shape_is_not_known(mask, findings, tmp_path) -> None:
    proto = filled_mask(mask)
    del proto.graph.initializer[0]  # the shape
    proto.graph.node.insert(0, node("Shape", "x", "shape", "read_shape", start=1))
    for size in proto.graph.input[0].type.tensor_type.shape.dim[1:]:
        size.dim_param = "length"
    onnx.save(proto, tmp_path / "model.onnx")
    found = [f for f in lint(tmp_path / "model.onnx").findings if f.rule == "infinite-constant"]
    assert len(found) == findings


def test_a_size_that_is_computed_of_static_ones_is_not_dynamic(tmp_path) -> None:
    proto = floats(
        node("Shape", "x", "s", "shape"),
        node("Div", "s two", "half", "half"),  # ONNX's shape inference gives up here
        node("Slice", "x zero half", "a", "cut"),
        node("Concat", "a a", "y", "join", axis=1),
        two=np.array([1, 2]), zero=np.array([0, 0]),
    )  # fmt: skip
    assert Graph(proto).constant("half").tolist() == [1, 4]
    onnx.save(proto, tmp_path / "model.onnx")
    assert "dynamic-dimension" not in {finding.rule for finding in lint(tmp_path / "model.onnx").findings}


def test_a_constant_that_can_not_be_computed_costs_only_that_value() -> None:
    proto = floats(
        node("Magic", "one", "unknown", "magic", domain="com.acme"),
        node("Add", "one one", "two", "add"),
        node("Expand", "one far", "large", "expand"),
        node("Sum", "x unknown two large", "y", "sum"),
        one=1.0, far=np.array([2048, 1024]),
    )  # fmt: skip
    graph = Graph(proto)
    assert graph.constant("two") == 2
    assert graph.constant("unknown") is graph.constant("large") is None


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quantised_constant_is_read_as_the_numbers_that_it_stands_for(axis: int) -> None:
    steps = np.arange(1, 4 + axis, dtype=np.float32) / 8
    proto = floats(
        node("DequantizeLinear", "w step zero", "d", "dequantise", axis=axis),
        node("Add", "x d", "y", "add"),
        shape=(3, 4), w=np.arange(12, dtype=np.uint8).reshape(3, 4), step=steps,
        zero=np.full(steps.size, 5, np.uint8),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": np.zeros((3, 4), np.float32)})
    np.testing.assert_array_equal(Graph(proto).constant("d"), expected)


def large(folder, **options):
    """One constant of 4 KB kept outside the file."""
    proto = floats(node("Add", "x bias", "y", "add"), shape=(1, 1024), bias=np.ones((1, 1024), np.float32))
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, size_threshold=0, **options)
    return folder / "model.onnx"


def external_findings(path) -> list[str]:
    return [finding.message for finding in lint(path).findings if finding.rule == "external-data"]


def test_external_data_passes_only_in_the_layout_that_the_hub_takes(tmp_path) -> None:
    path = large(tmp_path, location="model.data")
    assert external_findings(path) == []
    (tmp_path / "model.data").unlink()
    assert external_findings(path) == ["weights are missing: model.data"]
    odd = tmp_path / "odd"
    odd.mkdir()
    assert external_findings(large(odd, location="weights.bin")) == [
        "weights lie in weights.bin, whose name does not end in .data"
    ]


def test_weights_in_many_files_are_refused(tmp_path) -> None:
    proto = floats(
        node("Add", "x a", "h", "one"), node("Add", "h b", "y", "two"),
        a=np.ones((1, 8), np.float32), b=np.ones((1, 8), np.float32),
    )  # fmt: skip
    onnx.save(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    assert external_findings(tmp_path / "model.onnx")[0].startswith("weights lie in 2 files")


def test_a_model_above_two_gigabytes_is_an_error(tmp_path) -> None:
    path = large(tmp_path, location="model.data")
    with (tmp_path / "model.data").open("r+b") as file:
        file.truncate(3 * 2**30)  # sparse: takes no disk
    assert [finding.message for finding in lint(path).findings if finding.rule == "file-size"] == [
        "3.2 GB in all"
    ]


def test_activations_that_only_meet_a_clip_may_overflow(tmp_path) -> None:
    proto = pixels(
        node("Mul", "p large", "big", "enlarge"),
        node("Clip", "big zero top", "cut", "cut"),
        conv("cut w", "q", "conv"),
        large=1e6, zero=0.0, top=1.0, w=W,
    )  # fmt: skip
    onnx.save(proto, tmp_path / "model.onnx")
    report = lint(tmp_path / "model.onnx", activations=True)
    assert not [finding for finding in report.findings if finding.rule == "fp16-overflow"]


def test_activations_need_inputs_that_some_contract_makes(tmp_path) -> None:
    with pytest.raises(ExportError, match="no known contract"):
        lint(written(CORPUS["packed qkv"], tmp_path), activations=True)


@pytest.mark.parametrize("content", [b"", b"no model at all"])
def test_what_is_no_model_is_said_to_be_none(content: bytes, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="is not an ONNX model"):
        lint(path)


def test_a_graph_with_several_inputs_is_neither_tower_but_is_still_looked_at(tmp_path) -> None:
    proto = model(
        ("x", FLOAT, [1, 8]),
        ("y", FLOAT, [1, 8]),
        [node("Erf", "x", "a", "erf"), node("Add", "a z", "y", "add")],
    )
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", FLOAT, [1, 8]))
    onnx.save(proto, tmp_path / "model.onnx")
    report = lint(tmp_path / "model.onnx")
    assert report.tower is None
    assert {finding.rule for finding in report.findings} == {"contract", "erf"}


@dataclass(frozen=True)
class Point:
    """What importlib.metadata gives for an entry point."""

    name: str
    loaded: object
    value: str = "acme.rules:RULES"
    dist: None = None

    def load(self) -> object:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def rule(name: str, check) -> Rule:
    return Rule(name, "warning", "why", "cure", check)


def test_plugins_add_rules_and_a_broken_one_is_named_and_stops_nothing(tmp_path, monkeypatch) -> None:
    def crash(subject):
        raise ZeroDivisionError("in a rule")

    found = [
        Point("good", (rule("no-relu", lambda subject: [Hit("a relu", ("relu",))]),)),
        Point("thief", rule("erf", lambda subject: [])),
        Point("missing", ImportError("no acme")),
        Point("crash", rule("crash", crash)),
    ]
    monkeypatch.setattr(room, "points", lambda group: found if group == room.GROUP else [])
    onnx.save(gelu(root=2.0), tmp_path / "model.onnx")
    report = lint(tmp_path / "model.onnx")
    assert {finding.rule for finding in report.findings} >= {"no-relu", "erf"}
    problems = "\n".join(report.problems)
    for said in ("'erf' is taken", "ImportError: no acme", "rule crash: ZeroDivisionError"):
        assert said in problems


def own(*nodes: onnx.NodeProto, **values: np.ndarray | float) -> onnx.ModelProto:
    """Nodes of which some are ONNX Runtime's own, of a domain that is imported."""
    proto = floats(*nodes, **values)
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return proto


def test_types_that_can_not_be_inferred_are_a_problem_because_rules_fall_silent_there(tmp_path) -> None:
    def problems(proto: onnx.ModelProto) -> str:
        onnx.save(proto, tmp_path / "model.onnx")
        return "\n".join(lint(tmp_path / "model.onnx").problems)

    nodes = (
        node("QuickGelu", "x", "a", "gelu", domain="com.microsoft"),
        node("Cast", "a", "y", "cast", to=1),
    )
    assert "types and shapes of 1 values are not known, the first is a of gelu" in problems(own(*nodes))
    assert "shapes can't be inferred: InferenceError" in problems(floats(*nodes))


def test_types_are_known_behind_what_onnx_runtime_quantises_in_its_own_words() -> None:
    graph = Graph(
        own(
            node("QuantizeLinear", "x step zero", "q", "quantise", domain="com.microsoft"),
            node("DequantizeLinear", "q step zero", "d", "dequantise", domain="com.microsoft"),
            node("Gelu", "d", "g", "gelu", domain="com.microsoft"),
            node("Relu", "g", "y", "relu"),
            step=0.1, zero=np.array(0, np.uint16),
        )
    )  # fmt: skip
    assert [(graph.shape(name), str(graph.dtype(name))) for name in "qdg"] == [
        ((1, 8), "uint16"), ((1, 8), "float32"), ((1, 8), "float32"),
    ]  # fmt: skip
    assert graph.problem is None


@pytest.mark.parametrize(("fail_on", "status"), [("error", 1), ("never", 0)])
def test_the_command_does_not_pass_what_a_rule_could_not_look_at(
    fail_on: str, status: int, capsys, tmp_path, monkeypatch
) -> None:
    def crash(subject):
        raise ZeroDivisionError("in a rule")

    monkeypatch.setattr(room, "points", lambda group: [Point("crash", rule("crash", crash))])
    path = written(CORPUS["packed qkv"], tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["lint", str(path), "--fail-on", fail_on])
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert "Not all was looked at: rule crash: ZeroDivisionError: in a rule" in said
    assert ("Exit status 1 for that" in said) == bool(status)


@pytest.mark.parametrize("planted", ["a product of one row", "windows whose channels are split"])
@pytest.mark.parametrize(("htp_arch", "found"), [(None, True), (69, True), (73, False)])
def test_what_one_chip_gets_wrong_is_not_reported_for_another(
    planted: str, htp_arch, found: bool, tmp_path
) -> None:
    report = lint(written(CORPUS[planted], tmp_path), htp_arch=htp_arch)
    assert (CORPUS[planted].rule in {finding.rule for finding in report.findings}) == found


def command(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["lint", *arguments])
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.mark.parametrize(("fail_on", "status"), [("error", 0), ("warning", 1), ("info", 1), ("never", 0)])
def test_the_command_tells_ci_what_is_too_much(fail_on: str, status: int, capsys, tmp_path) -> None:
    path = written(CORPUS["packed qkv"], tmp_path)
    code, out = command(capsys, str(path), "--fail-on", fail_on)
    assert code == status
    words = " ".join(out.split())
    assert (
        "info packed-qkv: queries, keys and values are picked out of one packed tensor at pick_q, pick_k why"
        in words
    )


def test_the_command_speaks_json_and_fails_on_errors_by_default(capsys, tmp_path) -> None:
    code, out = command(capsys, str(written(CORPUS["bare erf"], tmp_path)), "--json")
    assert code == 1
    (report,) = json.loads(out)
    assert report["findings"][0]["rule"] == "erf"
    assert report["findings"][0]["nodes"] == ["bare_erf"]


def test_the_command_takes_an_exports_folder_with_all_that_its_manifest_says(capsys, tmp_path) -> None:
    export(tiny_model("lpcvc2026_sample"), tmp_path / "made")
    code, out = command(capsys, str(tmp_path / "made"), "--json", "--fail-on", "info", "--activations")
    reports = json.loads(out)
    assert [report["tower"] for report in reports] == ["image", "text"]
    assert [report["findings"] for report in reports] == [[], []]
    assert code == 0
    shutil.rmtree(tmp_path / "made")


def test_a_missing_file_and_a_misspelt_name_say_so(capsys, tmp_path) -> None:
    with pytest.raises(SystemExit):
        main(["lint", str(tmp_path / "none.onnx")])
    assert "none.onnx is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["lint", "mobilclip_s0"])
    assert "mobileclip_s0" in capsys.readouterr().err
