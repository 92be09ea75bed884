"""Quantising: what is calibrated on what, what stays float, what is refused, and how it is told."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import ClassVar

import aihub_sweep
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bad_models import FLOAT, floats, model, node
from strangers import Outlier, image_tower, strangers_model
from timm.models.efficientvit_mit import LiteMLA
from torch import nn

from lpcvc_zoo.bench.artifacts import artifact_cells
from lpcvc_zoo.cli import main
from lpcvc_zoo.cli.one import artifact_of
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.data import CALIBRATION_PHOTOS, calibration_pool, sample_photos
from lpcvc_zoo.errors import ExportError, UnknownNameError, ZooError
from lpcvc_zoo.exporting import cache
from lpcvc_zoo.exporting import quantize as room
from lpcvc_zoo.exporting.adopt import FAMILY
from lpcvc_zoo.exporting.artifact import FILES, MANIFEST, Artifact, Encodings, load_artifact
from lpcvc_zoo.exporting.calibrate import (
    CHECKED,
    WITH_LOGITS,
    Quantizable,
    _grouped,
    bundled_pool,
    calibration_inputs,
    held_out_inputs,
    layers_of,
    own_numbers,
    relus_first,
    softmaxes_with_logits,
)
from lpcvc_zoo.exporting.lint import lint_tower
from lpcvc_zoo.exporting.onnx import export
from lpcvc_zoo.exporting.precision import by_tower, canonical
from lpcvc_zoo.exporting.quantize import explain, quantize
from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.retrieval import calibration, datasets
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.evaluate import evaluate
from lpcvc_zoo.targets import get_target
from lpcvc_zoo.targets.onnxruntime import OnnxRuntimeTarget

CONTRACT = get_contract("lpcvc2026_sample")
SMALL = "efficientvit_m0_text_s"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return export(strangers_model(), tmp_path_factory.mktemp("float"), rewrites="npu")


@pytest.fixture(scope="module", params=["w8a16", "w8a8"])
def quantized(request, whole, tmp_path_factory):
    return quantize(whole, tmp_path_factory.mktemp(request.param), request.param, samples=8)


def test_precisions_are_named_for_a_model_or_tower_by_tower() -> None:
    assert by_tower("w8a8") == {"image": "w8a8", "text": "w8a8"}
    assert by_tower("image=w8a16,text=float") == {"image": "w8a16", "text": "float"}
    assert by_tower("text=w8a8") == {"image": "float", "text": "w8a8"}
    assert canonical("text=w8a8+image=w8a8") == "w8a8"
    assert canonical("text=w8a8") == "image=float+text=w8a8"


@pytest.mark.parametrize(
    ("wrong", "near"), [("w8a61", "w8a16"), ("imgae=w8a8", "image"), ("text=int8", "w8a8")]
)
def test_a_misspelt_precision_or_tower_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        canonical(wrong)


def test_a_tower_has_one_precision() -> None:
    with pytest.raises(ExportError, match="names the image tower twice"):
        by_tower("image=w8a16+image=w8a8")


def test_what_calibrates_is_never_scored_or_checked() -> None:
    photos, captions = calibration_pool()
    scored = load_dataset("photos_heldout")
    everything = load_dataset("photos")
    assert len(photos) == CALIBRATION_PHOTOS
    assert {image.name for image in scored.images} == {i.name for i in everything.images} - {
        p.name for p in photos
    }
    assert len(captions) > 100
    assert not set(captions) & set(scored.texts)
    # every text still belongs to the photos that it belonged to
    for image, positives in zip(scored.images, scored.positives, strict=True):
        before = everything.positives[everything.images.index(image)]
        assert [scored.texts[text] for text in positives] == [everything.texts[text] for text in before]


def test_calibration_is_drawn_by_its_seed_from_the_pool_alone() -> None:
    pool = bundled_pool()
    one, facts = calibration_inputs(CONTRACT, "text", pool, 8, 1)
    again, _ = calibration_inputs(CONTRACT, "text", pool, 8, 1)
    other, _ = calibration_inputs(CONTRACT, "text", pool, 8, 2)
    assert (facts.samples, facts.seed) == (8, 1)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    most, facts = calibration_inputs(CONTRACT, "image", pool, 1000, 0)
    assert len(most) == facts.samples == CALIBRATION_PHOTOS
    checked = held_out_inputs(CONTRACT, "image")
    assert not any(np.array_equal(photo, other) for photo in checked for other in most)


def test_weights_have_eight_bits_and_activations_what_was_asked(quantized) -> None:
    precision = quantized.manifest.precision
    graph = onnx.load(quantized.path("image")).graph
    kinds = Counter(tensor.data_type for tensor in graph.initializer)
    wide = onnx.TensorProto.UINT16 if precision == "w8a16" else onnx.TensorProto.UINT8
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    steps = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {initializers[node.input[2]].data_type for node in steps} == {wide}
    weights = [
        initializers[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in initializers
    ]
    convolution = next(tensor for tensor in weights if len(tensor.dims) == 4)
    assert convolution.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    per_channel = next(node for node in graph.node if node.input and node.input[0] == convolution.name)
    assert list(initializers[per_channel.input[1]].dims) == [convolution.dims[0]]
    assert kinds[onnx.TensorProto.FLOAT]


def test_pixels_and_the_last_division_stay_float(quantized) -> None:
    graph = onnx.load(quantized.path("image")).graph
    made = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if "image" in node.input)
    assert first.op_type != "QuantizeLinear"
    assert made["image_embedding"].op_type != "DequantizeLinear"


def test_rows_are_looked_up_in_the_float_token_embedding(quantized, whole) -> None:
    def table(artifact):
        graph = onnx.load(artifact.path("text")).graph
        (lookup,) = (node for node in graph.node if node.op_type == "Gather")
        (weights,) = (weights for weights in graph.initializer if weights.name == lookup.input[0])
        return onnx.numpy_helper.to_array(weights)

    assert table(quantized).dtype == np.float32
    np.testing.assert_array_equal(table(quantized), table(whole))


def test_the_manifest_says_how_it_was_made_and_how_well_it_agrees(quantized) -> None:
    again = load_artifact(quantized.folder).manifest
    for tower in ("image", "text"):
        facts = again.tower(tower).quantized
        assert facts.engine == f"onnxruntime {onnxruntime.__version__}"
        assert (facts.calibration.samples, facts.calibration.seed) == (8, 0)
        assert facts.agreement.min_cosine <= facts.mean_cosine
        assert facts.mean_cosine > 0.98
    assert again.rewrites
    assert (quantized.folder / MANIFEST).is_file()


def test_its_folder_is_scored_like_any_export_but_not_on_what_calibrated_it(quantized) -> None:
    scores = evaluate(quantized, "photos")
    assert scores.dataset == "photos_heldout"
    assert 0 <= scores.recall(10).value <= 1


@pytest.mark.parametrize("target", [(), ("--target", "onnxruntime")])
def test_the_command_scores_a_quantised_folder_on_the_held_out_photos(
    whole, quantized, target, monkeypatch
) -> None:
    asked: list[str] = []

    def load(name: str, **options: object) -> None:
        asked.append(name)
        raise ZooError("enough")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for folder in (whole.folder, quantized.folder):
        with pytest.raises(SystemExit):
            main(["evaluate", str(folder), *target])
    assert asked == ["photos", "photos_heldout"]


def test_its_folder_is_measured_as_it_is(quantized) -> None:
    own, other = quantized.manifest.precision, "image=w8a8"
    with pytest.raises(ZooError, match=f"made already, in {own}: expected no --precision {other}"):
        artifact_of(str(quantized.folder), {}, precision=other)
    with pytest.raises(ZooError, match=f"made already, in {own}: expected no --calibration"):
        artifact_of(str(quantized.folder), {}, precision=own, pool=bundled_pool())
    assert artifact_of(str(quantized.folder), {}, precision=own).manifest == quantized.manifest
    target = get_target("onnxruntime", iterations=3)
    profile = target.profile(target.compile(quantized.path("text"), "text"))
    assert profile.latency.median_ms > 0


def test_a_tower_left_in_float_is_the_very_same_file(whole, tmp_path) -> None:
    mixed = quantize(whole, tmp_path, "image=w8a16+text=float", samples=4)
    assert mixed.path("text").read_bytes() == whole.path("text").read_bytes()
    assert mixed.manifest.text.quantized is None
    assert mixed.manifest.image.quantized.precision == "w8a16"
    assert mixed.manifest.precision == "image=w8a16+text=float"


def test_only_a_float_export_is_quantised(whole, tmp_path) -> None:
    """A second time, a tower would be recorded as float, or measured against what is not."""
    once = quantize(whole, tmp_path / "once", "image=w8a8", samples=4)
    for precision in ("text=w8a8", "image=w8a8"):
        with pytest.raises(ExportError, match=r"quantised already, in image=w8a8\+text=float: expected a fl"):
            quantize(once, tmp_path / "twice", precision, samples=4)
        with pytest.raises(ExportError, match="quantised already"):
            explain(once, precision, samples=4)


def test_a_float_export_is_not_quantised_into_its_own_folder(whole, monkeypatch) -> None:
    monkeypatch.chdir(whole.folder)
    with pytest.raises(ExportError, match="expected another folder"):
        quantize(whole, ".", "w8a8", samples=4)
    assert load_artifact(whole.folder).manifest == whole.manifest


def test_a_tower_that_collapses_is_refused_unless_forced(tmp_path) -> None:
    torch.manual_seed(1)
    broken = export(strangers_model(image_tower(Outlier(16), Outlier(16))), tmp_path / "float")
    with pytest.raises(ExportError, match="The image tower collapses in w8a8: mean cosine"):
        quantize(broken, tmp_path / "w8a8", "image=w8a8", samples=4)
    assert not (tmp_path / "w8a8" / MANIFEST).exists()
    forced = quantize(broken, tmp_path / "forced", "image=w8a8", samples=4, force=True)
    assert forced.manifest.image.quantized.mean_cosine < 0.9
    fine = quantize(broken, tmp_path / "w8a16", "image=w8a16", samples=4)
    assert fine.manifest.image.quantized.mean_cosine > 0.99
    with pytest.raises(ExportError, match="collapses"):
        quantize(broken, fine.folder, "image=w8a8", samples=4)
    assert load_artifact(fine.folder).manifest == fine.manifest  # what lay there is as it was
    assert sorted(path.name for path in fine.folder.iterdir()) == sorted([MANIFEST, *FILES.values()])


def test_a_tower_whose_layers_are_not_known_is_not_quantised(whole, tmp_path) -> None:
    shutil.copytree(whole.folder, tmp_path / "float")
    for file in FILES.values():
        proto = onnx.load(tmp_path / "float" / file)
        for each in proto.graph.node:
            del each.metadata_props[:]
        onnx.save(proto, tmp_path / "float" / file)
    towers = {
        tower: whole.manifest.tower(tower).model_copy(update={"sha256": sha256_of(tmp_path / "float" / file)})
        for tower, file in FILES.items()
    }
    unnamed = Artifact(tmp_path / "float", whole.manifest.model_copy(update=towers))
    with pytest.raises(ExportError, match="which of torch's modules"):
        quantize(unnamed, tmp_path / "w8a8", "w8a8", samples=2)


def test_the_layer_that_costs_most_is_found_and_left_in_float(tmp_path) -> None:
    torch.manual_seed(1)
    layers = [nn.Linear(16, 16), Outlier(16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)]
    whole = export(strangers_model(image_tower(*layers)), tmp_path / "float")
    dearest = next(cost for cost in explain(whole, "image=w8a8", samples=4) if cost.by == "layer")
    assert (dearest.tower, dearest.name) == ("image", "4")  # its place in the tower
    kept = quantize(whole, tmp_path / "kept", "image=w8a8", samples=4).manifest.image.quantized
    assert kept.kept == ("4",)
    assert kept.mean_cosine > 0.95


def test_what_stays_in_float_is_chosen_by_what_calibrates(whole, tmp_path, monkeypatch) -> None:
    """The photos and captions of the verdict, which are scored too, have no say in it."""
    seen: list[Quantizable] = []
    monkeypatch.setattr(room, "_kept", lambda part, tower: seen.append(part) or ())
    quantize(whole, tmp_path, "w8a8", samples=30)
    for part, tower in zip(seen, ("image", "text"), strict=True):
        inputs, _ = calibration_inputs(CONTRACT, tower, bundled_pool(), 30, 0)
        np.testing.assert_array_equal(part.chosen_by.inputs, inputs[: CHECKED[tower]])
        np.testing.assert_array_equal(part.judged_by.inputs, held_out_inputs(CONTRACT, tower))


def test_a_type_of_operator_is_left_in_float_where_that_mends_more_than_a_layer(monkeypatch) -> None:
    class Part:
        layers: ClassVar = {"first": ["a", "b"], "second": ["c", "d"]}
        operators: ClassVar = {"Softmax": ["a", "c"], "MatMul": ["b", "d"]}

        def mean_cosine(self, kept):
            return 0.999 - 0.05 * len({"a", "c"} - set(kept))

    monkeypatch.setattr(room, "MOST_KEPT", 0.5)
    assert room._kept(Part(), "image") == ("Softmax",)
    monkeypatch.setattr(room, "MOST_KEPT", 0.49)  # each is half of all nodes
    assert room._kept(Part(), "image") == ()


def steps_to_softmax(artifact: Artifact) -> list[str]:
    """The text tower's operators from the product of queries and keys to the Softmax."""
    nodes = onnx.load(artifact.path("text")).graph.node
    made = {name: each for each in nodes for name in each.output}
    (each,) = (each for each in nodes if each.op_type == "Softmax")
    kinds = [each.op_type]
    while each.op_type != "MatMul":
        each = next(made[name] for name in each.input if name in made)
        kinds.append(each.op_type)
    return kinds[::-1]


def test_a_softmax_left_in_float_with_its_logits_takes_them_as_they_are(whole, tmp_path, monkeypatch) -> None:
    def kept(*names: str) -> list[str]:
        monkeypatch.setattr(room, "_kept", lambda part, tower: names)
        return steps_to_softmax(quantize(whole, tmp_path, "text=w8a8", samples=4))

    between = ["QuantizeLinear", "DequantizeLinear"]
    assert kept("Softmax") == ["MatMul", *between, "Add", *between, "Softmax"]
    assert kept(WITH_LOGITS) == ["MatMul", "Add", "Softmax"]


def test_logits_are_followed_back_to_the_product_that_they_are() -> None:
    proto = floats(
        node("MatMul", "x w", "q", "queries"), node("MatMul", "q x", "p", "product"),
        node("Mul", "p scale", "s", "scale"), node("Add", "mask s", "m", "mask"),
        node("Softmax", "m", "a", "softmax"), node("Add", "a x", "y", "residual"),
        shape=(8, 8), w=np.eye(8, dtype=np.float32), scale=0.5, mask=-1.0,
    )  # fmt: skip
    assert set(softmaxes_with_logits(proto)) == {"product", "scale", "mask", "softmax"}


def test_ones_own_photos_and_captions_calibrate(whole, tmp_path, own_data) -> None:
    pool = calibration.pool(str(own_data))
    made = quantize(whole, tmp_path / "own", "w8a8", samples=3, pool=pool)
    facts = made.manifest.image.quantized.calibration
    assert (facts.source, facts.samples) == (pool.source, 2)  # it has two
    assert (
        made.path("text").read_bytes()
        != quantize(whole, tmp_path / "bundled", "w8a8", samples=3).path("text").read_bytes()
    )
    names = {"precision": "w8a8", "pretrained": False}
    assert len({cache.export_key(SMALL, **names), cache.export_key(SMALL, pool=pool, **names)}) == 2
    assert cache.export_key(SMALL) == cache.export_key(SMALL, pool=pool)  # float is not calibrated


def test_what_calibrates_is_refused_where_it_would_be_scored(own_data, capsys) -> None:
    mine = str(own_data)
    for arguments in (
        ("quantize", SMALL, "--calibration", "photos"),
        ("quantize", SMALL, "--dataset", mine, "--calibration", mine),
        ("evaluate", SMALL, "--precision", "w8a8", "--dataset", mine, "--calibration", mine),
        ("sweep", "--models", SMALL, "--precision", "w8a8", "--calibration", "photos"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        assert ended.value.code == 1
        assert "which calibrates: expected none" in capsys.readouterr().err


def test_a_quantised_folder_goes_to_ai_hub_as_the_file_it_is(hub, whole, tmp_path) -> None:
    mixed = quantize(whole, tmp_path, "image=w8a16+text=float", samples=4)
    target = aihub_sweep.target()
    adopted = Artifact(mixed.folder, mixed.manifest.model_copy(update={"family": FAMILY}))
    (cell,) = artifact_cells([adopted], [target])
    assert cell.precision == mixed.manifest.precision
    batch = {"image": CONTRACT.prepare_image(sample_photos(1)[0])}
    outputs = target.infer(target.compile(mixed.path("image"), "image"), batch)
    assert [job.kind for job in hub.jobs] == ["compile", "inference"]  # the service quantises nothing
    (sent,) = [item.file for item in hub.state.models.values() if not item.pb.producer_id]
    assert sent.read_bytes() == mixed.path("image").read_bytes()
    expected = onnxruntime.InferenceSession(sent).run(None, batch)[0]
    np.testing.assert_allclose(outputs["image_embedding"], expected, atol=1e-6)


def test_a_target_that_ignores_encodings_is_named_once_for_each_file(
    hub, whole, tmp_path, caplog, monkeypatch
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "made"))
    (folder / "image_encoder.encodings").write_text("{}")
    kept = Encodings(file="image_encoder.encodings", sha256=sha256_of(folder / "image_encoder.encodings"))
    plain = Artifact(whole.folder, whole.manifest.model_copy(update={"family": FAMILY}))
    image = whole.manifest.image.model_copy(update={"encodings": kept})
    manifest = plain.manifest.model_copy(update={"image": image})
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    aihub, here = aihub_sweep.target(), get_target("onnxruntime", iterations=3)
    cells = artifact_cells([Artifact(folder, manifest)], [aihub, here, here])
    assert [cell.precision for cell in cells] == ["aimet", "float", "float"]
    (said,) = caplog.messages
    assert said.startswith(f"{folder / kept.file} is ignored by onnxruntime: the image tower runs there as")
    caplog.clear()
    artifact_cells([Artifact(folder, manifest)], [aihub])
    artifact_cells([plain], [here])
    assert not caplog.messages

    def stopped(*_: object) -> None:
        raise ZooError("enough")

    monkeypatch.setattr(OnnxRuntimeTarget, "compile", stopped)
    for command in ("profile", "evaluate"):
        with pytest.raises(SystemExit):
            main([command, str(folder), "--target", "onnxruntime"])
        assert caplog.messages == [said]
        caplog.clear()


def test_numbers_that_must_stay_constants_are_shared_with_nobody() -> None:
    proto = floats(
        node("Add", "x one", "a", "add"),
        node("Pad", "a ends one", "b", "pad"),
        node("Pad", "b ends two", "c", "pad_too"),
        node("Pad", "c ends two", "d", "pad_again"),
        node("Clip", "d zero one", "e", "clip"),
        node("Clip", "e zero", "y", "clip_too"),
        one=1.0, two=2.0, zero=0.0, ends=np.array([0, 0, 0, 0]),
    )  # fmt: skip
    assert own_numbers(proto) == 3
    taken = {each.name: list(each.input) for each in proto.graph.node}
    assert taken["add"] == ["x", "one"]
    assert taken["clip_too"] == ["e", "zero"]
    numbers = [taken["pad"][2], taken["pad_too"][2], taken["pad_again"][2], taken["clip"][2]]
    assert len({*numbers, "one"}) == 5
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in proto.graph.initializer}
    assert [stored[name] for name in numbers] == [1.0, 2.0, 2.0, 1.0]
    assert own_numbers(proto) == 0


def test_a_relu_behind_a_transpose_of_its_own_goes_before_it() -> None:
    proto = model(
        ("x", FLOAT, [1, 2, 3]),
        ("y", FLOAT, [1, 3, 2]),
        [
            node("Transpose", "x", "t", "turn", perm=[0, 2, 1]),
            node("Relu", "t", "r", "clip"),
            node("Transpose", "r", "u", "turn_back", perm=[0, 2, 1]),
            node("Transpose", "u", "v", "turn_again", perm=[0, 2, 1]),
            node("Relu", "v", "w", "clip_again"),
            node("Add", "v w", "y", "add"),
        ],
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32)
    before = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    assert relus_first(proto) == 1
    assert [each.name for each in proto.graph.node][:2] == ["clip", "turn"]
    onnx.checker.check_model(proto, full_check=True)
    after = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(after[0], before[0])
    assert relus_first(proto) == 0


def test_what_linear_attention_divides_stays_in_float(tmp_path) -> None:
    """In 16 bits the smallest sums of a real tower became 0, and one photo's embedding another's."""
    tower = nn.Sequential(
        nn.Conv2d(3, 16, 32, stride=32), LiteMLA(16, 16, dim=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    whole = export(strangers_model(tower), tmp_path / "float", rewrites="npu")
    nodes = onnx.load(quantize(whole, tmp_path / "w8a16", "image=w8a16", samples=4).path("image")).graph.node
    made = {name: each for each in nodes for name in each.output}
    divisors = [made.get(each.input[1]) for each in nodes if each.op_type == "Div"]
    clamps = [each for each in divisors if each is not None and each.op_type == "Clip"]
    assert sorted(made[clamp.input[0]].op_type for clamp in clamps) == [
        "ReduceMean",
        "ReduceSum",
        "ReduceSum",
    ]
    products = [each for each in nodes if each.op_type == "MatMul"]
    assert {made[name].op_type for each in products[-2:] for name in each.input} == {"DequantizeLinear"}


def test_parts_that_are_left_in_float_are_whole_and_take_nothing_with_them() -> None:
    def scoped(name: str, *scopes: str) -> onnx.NodeProto:
        made = node("Relu", "x", name, name)
        if scopes:
            entry = made.metadata_props.add()
            entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(["", *scopes, name])
        return made

    nodes = [
        scoped("before", "tower.1"), scoped("own", "tower.2.in_float"),
        scoped("inner", "tower.2.in_float", "tower.2.in_float.act"), scoped("made by preparation"),
        scoped("after", "tower.3"),
    ]  # fmt: skip
    graph = onnx.GraphProto(node=nodes)
    assert _grouped(graph, layers_of(nodes)) == {
        "1": ["before", "made by preparation"], "in_float": ["own", "inner"], "3": ["after"],
    }  # fmt: skip


def test_a_hard_swish_that_stays_in_float_has_its_gate_first(tmp_path, monkeypatch) -> None:
    """Otherwise the NPU computes x² HardSigmoid(x), which test_miscompiled shows."""
    layers = [nn.Linear(16, 16), nn.Hardswish(), nn.Linear(16, 16)]
    whole = export(strangers_model(image_tower(*layers)), tmp_path / "float")
    monkeypatch.setattr(room, "_kept", lambda part, tower: tuple(part.layers))
    made = quantize(whole, tmp_path / "w8a8", "image=w8a8", samples=4)
    nodes = {name: each for each in onnx.load(made.path("image")).graph.node for name in each.output}
    gates = [each for each in nodes.values() if each.op_type == "HardSigmoid"]
    (swish,) = (each for each in nodes.values() if gates[0].output[0] in each.input)
    assert list(swish.input) == [gates[0].output[0], gates[0].input[0]]
    assert "hard-swish-pair" not in {finding.rule for finding in lint_tower(made, "image").findings}


def test_the_cache_keeps_precisions_apart_and_quantises_the_float_export(
    whole, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path))
    keys = {cache.export_key(SMALL, precision=precision) for precision in ("float", "w8a16", "w8a8")}
    assert len(keys) == 3
    assert cache.export_key(SMALL, precision="image=w8a8+text=w8a8") == cache.export_key(
        SMALL, precision="w8a8"
    )
    shutil.copytree(whole.folder, tmp_path / "exports" / cache.export_key(SMALL))
    made = cache.cached_export(SMALL, precision="image=w8a8")
    assert made.folder == tmp_path / "exports" / cache.export_key(SMALL, precision="image=w8a8")
    assert made.manifest.image.quantized.precision == "w8a8"
    assert made.path("text").read_bytes() == whole.path("text").read_bytes()


@pytest.fixture
def own_data(tmp_path):
    """A folder with two photos and their captions."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, photo in enumerate(sample_photos(2)):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
    lines = [f"{number}.jpg,thing {number} of {letter}." for number in range(2) for letter in "abcdefgh"]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    return folder


def command(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["quantize", SMALL, *arguments])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_the_command_quantises_and_explains(whole, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(cache, "cached_export", lambda name, **options: whole)
    arguments = ("--precision", "w8a8", "--samples", "4", "--out", str(tmp_path))
    code, out = command(capsys, *arguments, "--json")
    assert code == 0
    assert json.loads(out)["image"]["quantized"]["precision"] == "w8a8"
    monkeypatch.setattr(datasets, "load_dataset", pytest.fail)  # nothing is scored
    code, out = command(capsys, *arguments, "--explain", "--json")
    costs = json.loads(out)
    assert {cost["by"] for cost in costs} == {"layer", "operator"}
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    code, out = command(capsys, *arguments, "--explain")
    assert "LayerNormalization" in out or "MatMul" in out
    code, out = command(capsys, *arguments[2:], "--precision", "float", "--explain")
    assert code == 1


def test_the_command_tells_the_recall_of_trained_weights(whole, tmp_path, capsys, monkeypatch) -> None:
    trained = Artifact(whole.folder, whole.manifest.model_copy(update={"weights": "mine@abc"}))
    monkeypatch.setattr(cache, "cached_export", lambda name, **options: trained)
    arguments = ("--precision", "text=w8a8", "--samples", "4", "--out", str(tmp_path))
    _, out = command(capsys, *arguments, "--json")
    recalls = json.loads(out)["recall"]
    precision = "image=float+text=w8a8"
    assert list(recalls) == ["float", precision]
    scored = evaluate(load_artifact(tmp_path), "photos_heldout").recall(10)
    assert recalls[precision] == scored.model_dump(mode="json")


def test_the_command_tells_the_recall_on_ones_own_photos(
    whole, tmp_path, own_data, capsys, monkeypatch
) -> None:
    trained = Artifact(whole.folder, whole.manifest.model_copy(update={"weights": "mine@abc"}))
    monkeypatch.setattr(cache, "cached_export", lambda name, **options: trained)
    mine = load_dataset(str(own_data))
    arguments = ("--precision", "text=w8a8", "--samples", "4", "--out", str(tmp_path / "made"))
    _, out = command(capsys, *arguments, "--dataset", str(own_data))
    scored = evaluate(load_artifact(tmp_path / "made"), mine).recall(10)
    assert re.search(
        rf"image=float\+text=w8a8 +{scored.value:.3f} +{scored.low:.3f} to {scored.high:.3f}", out
    )
    assert f"on {mine.name}: 2 images, none of which calibrates" in out
