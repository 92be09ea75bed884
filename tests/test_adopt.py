"""Towers made elsewhere: adopted where that is exact, refused clearly where not, then used like our own."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aihub_sweep
import foreign
import numpy as np
import onnx
import onnxruntime
import pytest
from aihub_server import AIHubServer
from onnx import TensorProto
from qai_hub import public_api_pb2 as pb
from test_cli import command, from_json
from tiny import two_photos

from lpcvc_zoo import adopt, evaluate, get_contract, load_artifact
from lpcvc_zoo.bench.artifacts import artifact_cells
from lpcvc_zoo.data import sample_photos
from lpcvc_zoo.errors import ContractError, ExportError
from lpcvc_zoo.exporting.adopt import tower_of
from lpcvc_zoo.targets import get_target

RULES, SAMPLE = get_contract("lpcvc2026"), get_contract("lpcvc2026_sample")
CAPTIONS = ["a red car.", "two dogs on a beach with a very long rope.", "sky."]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))


def run(file: Path, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def unit(rows: Any) -> Any:
    flat = rows.reshape(1, -1).astype(np.float64)
    return flat / np.linalg.norm(flat)


def test_a_pair_as_transformers_exports_it_computes_the_same_as_before(tmp_path: Path) -> None:
    image = foreign.image_tower(tmp_path / "i.onnx", hidden=True)
    text = foreign.text_tower(tmp_path / "t.onnx", names=("input_ids", "attention_mask"))
    made = adopt(None, text, tmp_path / "pair", contract=RULES)
    assert made.manifest.text is not None
    assert made.manifest.text.input_shape == (2, 1, 77)
    for caption in CAPTIONS:
        given = RULES.prepare_text(caption)
        got = run(made.path("text"), text=given)
        ids, mask = given.astype(np.int64)
        np.testing.assert_allclose(got, unit(run(text, input_ids=ids, attention_mask=mask)), atol=1e-6)
    made = adopt(image, None, tmp_path / "images", contract=SAMPLE, outputs={"image": "image_embeds"})
    for photo in sample_photos(3):
        given = SAMPLE.prepare_image(photo)
        expected = onnxruntime.InferenceSession(str(image)).run(["image_embeds"], {"pixel_values": given})[0]
        np.testing.assert_allclose(run(made.path("image"), image=given), unit(expected), atol=1e-6)
    left = {node.op_type for node in onnx.load(made.path("image")).graph.node}
    assert "Relu" not in left  # what only the other output needed


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(
    ("options", "contract", "changes"),
    [
        (
            {"shape": (1, 77), "kind": TensorProto.INT32, "unit": True},
            SAMPLE,
            ["renamed to 'text'", "output"],
        ),
        ({"shape": (1, 77)}, SAMPLE, ["widened from int32 to int64", "divided by its length"]),
        ({"shape": ("b", "s")}, SAMPLE, ["widened from int32 to int64", "divided"]),
        ({"shape": (1, 1, 77)}, SAMPLE, ["reshaped to [1, 1, 77], widened", "reshaped to [1, 6], divided"]),
        ({"shape": (77,)}, SAMPLE, ["reshaped to [77]", "reshaped to [1, 6]"]),
        ({"shape": (1, 77)}, RULES, ["takes the ids of 'text', reshaped to [1, 77], widened", "divided"]),
        ({"shape": ("b", "s"), "names": ("text",)}, RULES, ["takes the ids of 'text'", "divided"]),
        (
            {"shape": (1, 77), "names": ("text", "the_mask")},
            RULES,
            ["takes the ids", "takes the mask", "div"],
        ),
    ],
    ids=lambda value: "" if isinstance(value, int) else None,
)
def test_texts_in_every_exact_form(
    tmp_path: Path, options: dict[str, Any], contract: Any, changes: list[str], opset: int
) -> None:
    file = foreign.text_tower(tmp_path / "t.onnx", opset=opset, **options)
    made = adopt(None, file, tmp_path / "out", contract=contract)
    tower = made.manifest.tower("text")
    assert len(tower.changes) == len(changes)
    assert all(part in change for part, change in zip(changes, tower.changes, strict=True))
    onnx.checker.check_model(onnx.load(made.path("text")), full_check=True)
    names = options.get("names", ("input_ids",))
    shape = tuple(1 if size == "b" else 77 if size == "s" else size for size in options["shape"])
    dtype = np.int32 if options.get("kind") == TensorProto.INT32 else np.int64
    for caption in CAPTIONS:
        given = contract.prepare_text(caption)
        planes = given if contract.text.has_mask else [given]
        own = {name: plane.astype(dtype).reshape(shape) for name, plane in zip(names, planes, strict=False)}
        np.testing.assert_allclose(run(made.path("text"), text=given), unit(run(file, **own)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"shape": (1, 3, 224, 224)}, "input 'pixel_values' renamed to 'image'"),
        ({"name": "image", "shape": ("b", "c", "h", "w")}, "fixed to shape [1, 3, 224, 224]"),
        ({"shape": (1, 224, 224, 3), "channels_last": True}, "turned to channels last"),
        ({"name": "image", "shape": ("b", 224, 224, 3), "channels_last": True}, "turned to channels last"),
        ({"shape": (1, 3, 224, 224), "kind": TensorProto.DOUBLE}, "widened from float32 to float64"),
        ({"name": "x", "output": "image", "shape": (1, 3, 224, 224)}, "'x' renamed to 'image'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_in_every_exact_form(tmp_path: Path, options: dict[str, Any], change: str) -> None:
    file = foreign.image_tower(tmp_path / "i.onnx", **options)
    made = adopt(file, None, tmp_path / "out", contract=SAMPLE)
    tower = made.manifest.tower("image")
    assert change in tower.changes[0]
    assert (tower.input_name, tower.output_name) == ("image", "image_embedding")
    onnx.checker.check_model(onnx.load(made.path("image")), full_check=True)
    given = SAMPLE.prepare_image(sample_photos(1)[0])
    own = given.transpose(0, 2, 3, 1) if options.get("channels_last") else given
    own = own.astype(np.float64) if options.get("kind") else own
    expected = run(file, **{options.get("name", "pixel_values"): own})
    np.testing.assert_allclose(run(made.path("image"), image=given), unit(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("tower", "options", "contract", "message"),
    [
        ("image", {"shape": (1, 3, 224, 224)}, RULES, r"3, 1024, 1024\].*got float32 \[1, 3, 224, 224\]"),
        ("image", {"kind": TensorProto.UINT8}, SAMPLE, r"expected float32 .*got uint8 \[\?, 3, 224, 224\]"),
        ("image", {"kind": TensorProto.FLOAT16}, SAMPLE, "got float16"),
        ("image", {"kind": 99}, SAMPLE, "a tensor's type and shape .*got type 99, which no tensor has"),
        ("image", {"hidden": True}, SAMPLE, r"outputs: expected 'image_embedding'.*last_hid.*image_embeds"),
        ("image", {"scale": float("nan")}, SAMPLE, "finite numbers"),
        ("image", {"scale": 0.0}, SAMPLE, "finite numbers"),
        ("text", {"shape": (1, 64)}, SAMPLE, r"expected int32 \[1, 77\].*got int64 \[1, 64\]"),
        ("text", {"kind": TensorProto.INT32, "shape": (1, 64)}, RULES, r"\[2, 1, 77\].*got int32 \[1, 64\]"),
        ("text", {"names": ("ids", "mask")}, SAMPLE, r"expected one input .*got ids int64 .*mask int64"),
        ("text", {"opset": 10, "kind": TensorProto.INT32}, SAMPLE, None),
    ],
)  # fmt: skip
def test_what_would_change_the_numbers_is_refused_with_what_was_expected(
    tmp_path: Path, tower: str, options: dict[str, Any], contract: Any, message: str | None
) -> None:
    if message is None:
        file = foreign.text_tower(tmp_path / "t.onnx", shape=(1, 77))
        old = onnx.load(file)
        old.opset_import[0].version = 10
        onnx.save(old, file)
        message = "opset: expected 11 or newer, got 10"
    else:
        file = getattr(foreign, f"{tower}_tower")(tmp_path / "f.onnx", **options)
    given = {"image": (file, None), "text": (None, file)}[tower]
    with pytest.raises(ContractError, match=message):
        adopt(*given, tmp_path / "out", contract=contract)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "cache"]


def test_a_tower_that_ignores_its_input_and_a_pair_that_does_not_fit_are_refused(tmp_path: Path) -> None:
    file = foreign.text_tower(tmp_path / "t.onnx")
    model = onnx.load(file)
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    table.CopyFrom(onnx.numpy_helper.from_array(np.ones((foreign.VOCABULARY, 3), np.float32), "table"))
    onnx.save(model, tmp_path / "same.onnx")
    with pytest.raises(ContractError, match="different ones for different texts"):
        adopt(None, tmp_path / "same.onnx", tmp_path / "out", contract=SAMPLE)
    image = foreign.image_tower(tmp_path / "i.onnx", dim=7)
    with pytest.raises(ContractError, match=r"one size for both towers.*'image': 7, 'text': 6"):
        adopt(image, file, tmp_path / "out", contract=SAMPLE)
    with pytest.raises(ContractError, match=r"image tower, input 'input_ids'"):
        adopt(file, image, tmp_path / "out", contract=SAMPLE)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"not onnx")
    with pytest.raises(ExportError, match=r"no\.onnx can't be read as ONNX"):
        adopt(tmp_path / "no.onnx", None, tmp_path / "out")
    with pytest.raises(ExportError, match=r"gone\.onnx is missing"):
        adopt(None, tmp_path / "gone.onnx", tmp_path / "out")
    with pytest.raises(ExportError, match="nothing to adopt"):
        adopt(None, None, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    file = foreign.text_tower(tmp_path / "t.onnx")
    with pytest.raises(ExportError, match=r"it holds other files \(thesis"):
        adopt(None, file, tmp_path / "mine", contract=SAMPLE)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_weights_in_another_file_are_taken_into_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = foreign.text_tower(tmp_path / "t.onnx")
    beside = tmp_path / "beside" / "t.onnx"
    beside.parent.mkdir()
    onnx.save(onnx.load(plain), beside, save_as_external_data=True, location="t.bin", size_threshold=0)
    made = adopt(None, beside, tmp_path / "out", contract=SAMPLE)
    assert sorted(path.name for path in made.folder.iterdir()) == ["manifest.json", "text_encoder.onnx"]
    given = SAMPLE.prepare_text(CAPTIONS[0])
    expected = unit(run(plain, input_ids=given.astype(np.int64)))
    np.testing.assert_allclose(run(made.path("text"), text=given), expected, atol=1e-6)
    same = made.manifest.weights
    stored = (beside.parent / "t.bin").read_bytes()
    middle = len(stored) // 2  # in the largest, the table
    (beside.parent / "t.bin").write_bytes(
        stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]
    )
    assert adopt(None, beside, tmp_path / "other", contract=SAMPLE).manifest.weights != same
    (beside.parent / "t.bin").write_bytes(stored[4:])
    with pytest.raises(ExportError, match=r"other files that can't be read: .* exceeds available data"):
        adopt(None, beside, tmp_path / "out", contract=SAMPLE)
    monkeypatch.setattr("lpcvc_zoo.exporting.adopt._TWO_GB", 1000)
    with pytest.raises(ExportError, match="must stay below 2 GB"):
        adopt(None, beside, tmp_path / "out", contract=SAMPLE)
    (beside.parent / "t.bin").unlink()
    with pytest.raises(ExportError, match=r"missing: .*t\.bin"):
        adopt(None, beside, tmp_path / "out", contract=SAMPLE)
    load_artifact(tmp_path / "out")  # the earlier one stays whole


def linked(folder: Path) -> None:
    """As a hub's cache lays a snapshot out."""
    for path in list(folder.iterdir()):
        path.symlink_to(path.rename(folder.parent / f"blob of {path.name}"))


@pytest.mark.parametrize("lay_out", [linked, lambda folder: None])
def test_weights_behind_links_or_of_constant_nodes_are_found_as_lint_finds_them(
    lay_out: Callable[[Path], None], tmp_path: Path
) -> None:
    model = onnx.load(foreign.image_tower(tmp_path / "i.onnx"))
    (held,) = model.graph.initializer
    constant = onnx.helper.make_node("Constant", [], [held.name], value=held)
    model.graph.node.insert(0, constant)
    del model.graph.initializer[:]
    (tmp_path / "snapshot").mkdir()
    onnx.save(
        model, tmp_path / "snapshot" / "i.onnx",
        save_as_external_data=True, size_threshold=0, location="i.data", convert_attribute=True,
    )  # fmt: skip
    lay_out(tmp_path / "snapshot")
    made = adopt(tmp_path / "snapshot" / "i.onnx", None, tmp_path / "out", contract=SAMPLE)
    given = SAMPLE.prepare_image(sample_photos(1)[0])
    expected = unit(run(tmp_path / "i.onnx", pixel_values=given))
    np.testing.assert_allclose(run(made.path("image"), image=given), expected, atol=1e-6)


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0"])
def test_encodings_stay_beside_the_tower_under_its_new_names(tmp_path: Path, version: str) -> None:
    activations: Any = {"pixel_values": [{"bitwidth": 16}], "pooled": [{"bitwidth": 16}]}
    parameters: Any = {"projection": [{"bitwidth": 8}]}
    if version == "1.0.0":
        activations = [{"name": name, "bw": 16} for name in activations]
        parameters = [{"name": name, "bw": 8} for name in parameters]
    given = tmp_path / "model.encodings"
    content = {"version": version, "activation_encodings": activations, "param_encodings": parameters}
    given.write_text(json.dumps(content))
    file = foreign.image_tower(tmp_path / "i.onnx")
    made = adopt(file, None, tmp_path / "out", contract=SAMPLE, encodings={"image": given})
    kept = made.manifest.tower("image").encodings
    assert kept is not None
    assert kept.file == "image_encoder.encodings"
    text = (made.folder / kept.file).read_text()
    known = {
        name for node in onnx.load(made.path("image")).graph.node for name in (*node.input, *node.output)
    }
    written = json.loads(text)
    parts = [written["activation_encodings"], written["param_encodings"]]
    names = {
        name for part in parts for name in (part if version == "0.6.1" else [item["name"] for item in part])
    }
    assert names == {"image", "pooled", "projection"}
    assert names <= known
    (made.folder / kept.file).write_text(text + " ")
    with pytest.raises(ExportError, match=r"image_encoder\.encodings is not the file"):
        load_artifact(made.folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"activation_encodings": {}}', "not an AIMET encodings file"),
        ('{"activation_encodings": {}, "param_encodings": [{"bw": 8}]}', "with a name .KeyError: 'name'"),
        ('{"activation_encodings": {}, "param_encodings": ["a"]}', "with a name .TypeError"),
        ("[]", "not an AIMET encodings file"),
        (None, r"model\.encodings can't be read: Is a directory; expected AIMET's encodings of image_enc"),
    ],
)
def test_encodings_that_are_none_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    given = tmp_path / "model.encodings"
    given.mkdir() if content is None else given.write_text(content)
    file = foreign.image_tower(tmp_path / "i.onnx")
    with pytest.raises(ExportError, match=message):
        adopt(file, None, tmp_path / "out", contract=SAMPLE, encodings={"image": given})


def test_a_folder_inside_a_file_is_refused(tmp_path: Path) -> None:
    file = foreign.image_tower(tmp_path / "i.onnx")
    with pytest.raises(ExportError, match=r"can't be written: expected a folder, but .*i\.onnx is none"):
        adopt(file, None, file / "x" / "y", contract=SAMPLE)


def test_the_manifest_says_adopted_and_what_it_was_made_of(tmp_path: Path) -> None:
    image, text = foreign.image_tower(tmp_path / "i.onnx"), foreign.text_tower(tmp_path / "t.onnx")
    made = adopt(image, text, tmp_path / "My Pair", contract=SAMPLE)
    manifest = made.manifest
    assert manifest.entry == "my_pair"
    assert manifest.family == "adopted"
    assert manifest.weights.startswith("adopted@")
    assert manifest.towers == ("image", "text")
    assert (manifest.image_size, manifest.fused, manifest.interpolation) == (None, None, None)
    assert adopt(image, text, tmp_path / "again", contract=SAMPLE).manifest.weights == manifest.weights
    other = foreign.text_tower(tmp_path / "u.onnx", unit=True)
    assert adopt(image, other, tmp_path / "other", contract=SAMPLE).manifest.weights != manifest.weights
    assert [tower_of(file) for file in (image, text)] == ["image", "text"]


def test_an_adopted_pair_is_scored_and_half_a_pair_is_not(tmp_path: Path) -> None:
    image, text = foreign.image_tower(tmp_path / "i.onnx"), foreign.text_tower(tmp_path / "t.onnx")
    data = two_photos(tmp_path / "two photos")
    scores = evaluate(adopt(image, text, tmp_path / "pair", contract=SAMPLE), data)
    assert 0 <= scores.recall(10).value <= 1
    half = adopt(image, None, tmp_path / "half", contract=SAMPLE)
    with pytest.raises(ExportError, match="half has no text tower: it was adopted without one"):
        evaluate(half, data)


def test_the_command_adopts_and_the_others_take_the_folder(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign.image_tower(Path("i.onnx"), hidden=True)
    foreign.text_tower(Path("t.onnx"))
    adopting = ["adopt", "i.onnx", "t.onnx", "--contract", "lpcvc2026_sample", "--out", "pair"]
    status, _, err = command(capsys, *adopting)
    assert status == 1
    assert "--image-output" in err
    status, out, _ = command(capsys, *adopting, "--image-output", "image_embeds")
    assert status == 0
    assert "renamed to 'image'" in " ".join(out.split())
    profiles = from_json(capsys, "profile", "pair", "--threads", "1")
    assert profiles["image"]["latency"]["median_ms"] > 0
    data = two_photos(tmp_path / "two photos")
    assert from_json(capsys, "evaluate", "pair", "--dataset", str(data))["images"] == 2
    status, _, err = command(capsys, "profile", "pair", "--contract", "lpcvc2026", "--text-length", "32")
    assert status == 1
    assert "expected no --text-length, --contract" in err
    assert command(capsys, "adopt", "t.onnx", *adopting[3:5], "--out", "texts")[0] == 0
    assert list(from_json(capsys, "profile", "texts", "--threads", "1")) == ["text"]
    status, _, err = command(capsys, "evaluate", "texts", "--dataset", str(data))
    assert (status, "no image tower" in err) == (1, True)


def test_adopted_models_are_swept_beside_each_other_and_say_what_they_are(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    image, text = foreign.image_tower(Path("i.onnx")), foreign.text_tower(Path("t.onnx"))
    made = adopt(image, text, "pair", contract=SAMPLE)
    adopt(image, None, "half", contract=SAMPLE)
    data = two_photos(tmp_path / "two photos")
    sweeping = [
        "sweep",
        "--artifacts",
        "pair",
        "--artifacts",
        "half",
        "--dataset",
        str(data),
        "--threads",
        "1",
    ]
    pair, half = from_json(capsys, *sweeping)
    assert (pair["entry"], pair["family"], pair["error"]) == ("pair", "adopted", None)
    assert pair["weights"] == made.manifest.weights
    assert pair["scores"]["images"] == 2
    assert (pair["preprocess_ms"], pair["image_parity_cosine"], pair["image_size"]) == (None, None, None)
    assert half["image"]["latency"]["iterations_ms"]
    assert (half["text"], half["scores"], half["error"]) == (None, None, None)
    page = Path("results/report.html").read_text()
    assert "pair.adopted" in page
    assert from_json(capsys, *sweeping) == [pair, half]  # nothing is measured twice
    status, _, err = command(capsys, *sweeping, "--contract", "lpcvc2026")
    assert (status, "The artifacts are made already: expected no --contract." in err) == (1, True)


def test_encodings_go_to_ai_hub_with_the_tower(hub: AIHubServer, tmp_path: Path) -> None:
    given = tmp_path / "model.encodings"
    given.write_text('{"activation_encodings": {}, "param_encodings": {"projection": [{"bitwidth": 8}]}}')
    image = foreign.image_tower(tmp_path / "i.onnx")
    plain = adopt(image, None, tmp_path / "plain", contract=SAMPLE)
    quantised = adopt(image, None, tmp_path / "quantised", contract=SAMPLE, encodings={"image": given})
    target = aihub_sweep.target()
    for made in (plain, quantised):
        target.profile(target.compile(made.path("image"), "image"))
    uploaded = [item for item in hub.state.models.values() if not item.pb.producer_id]
    assert [item.pb.model_type for item in uploaded] == [pb.MODEL_TYPE_ONNX, pb.MODEL_TYPE_AIMET_ONNX]
    assert uploaded[1].file is not None
    with zipfile.ZipFile(uploaded[1].file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".encodings")]
        assert json.loads(archive.read(name))["param_encodings"] == {"projection": [{"bitwidth": 8}]}
    cells = artifact_cells([plain, quantised], [target, get_target()])
    assert [cell.precision for cell in cells] == ["float", "float", "aimet", "float"]
