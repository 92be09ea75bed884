"""Export: two checked static towers, a manifest, a gate that fails when it should, and a cache."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import DIM, tiny_model
from torch import nn

from lpcvc_zoo.contract import CONTRACTS
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import MANIFEST, REJECTED, Manifest, check_folder, load_artifact
from lpcvc_zoo.exporting.graphs import SCOPES
from lpcvc_zoo.exporting.onnx import OPSET, export


@pytest.fixture(scope="module", params=CONTRACTS)
def exported(request, tmp_path_factory):
    model = tiny_model(request.param)
    return model, export(model, tmp_path_factory.mktemp("exported"))


def test_towers_have_the_contracts_names_static_shapes_and_types(exported) -> None:
    model, artifact = exported
    contract = model.contract
    image, text = artifact.manifest.image, artifact.manifest.text
    assert (image.input_name, image.input_shape, image.input_dtype) == (
        "image",
        contract.image.shape(1),
        "float32",
    )
    assert (text.input_name, text.input_shape, text.input_dtype) == ("text", contract.text.shape(1), "int32")
    assert (image.output_name, text.output_name) == ("image_embedding", "text_embedding")
    assert image.output_shape == text.output_shape == (1, DIM)
    for tower in ("image", "text"):
        session = onnxruntime.InferenceSession(str(artifact.path(tower)))
        assert tuple(session.get_inputs()[0].shape) == artifact.manifest.tower(tower).input_shape


def test_towers_are_single_checked_files_of_the_asked_opset_with_every_shape_inferred(exported) -> None:
    _, artifact = exported
    for tower in ("image", "text"):
        proto = onnx.load(artifact.path(tower))
        onnx.checker.check_model(proto, full_check=True)
        assert [item.version for item in proto.opset_import if item.domain == ""] == [OPSET]
        assert not any(tensor.external_data for tensor in proto.graph.initializer)
        known = {value.name for value in proto.graph.value_info} | {
            value.name for value in proto.graph.output
        }
        assert {name for node in proto.graph.node for name in node.output} <= known


def test_a_tower_says_nothing_of_the_machine_that_exported_it(exported) -> None:
    _, artifact = exported
    for tower in ("image", "text"):
        assert str(Path(__file__).parent.parent).encode() not in artifact.path(tower).read_bytes()
        graph = onnx.load(artifact.path(tower)).graph
        assert {note.key for node in graph.node for note in node.metadata_props} == {SCOPES}


def test_text_tower_has_no_int64_path_from_its_input(exported) -> None:
    _, artifact = exported
    operators = Counter(node.op_type for node in onnx.load(artifact.path("text")).graph.node)
    assert not operators.keys() & {"ArgMax", "GatherND", "ScatterND", "Where", "If", "Loop", "Einsum"}


def test_onnx_and_torch_agree_on_what_the_parity_gate_never_saw(exported) -> None:
    model, artifact = exported
    text = model.contract.prepare_text("a text that is not among the bundled captions at all.")
    got = onnxruntime.InferenceSession(str(artifact.path("text"))).run(None, {"text": text})[0]
    np.testing.assert_allclose(got, model.encode_text(text).detach().numpy(), atol=1e-5)
    assert artifact.manifest.text.parity.min_cosine >= 0.9999
    assert artifact.manifest.image.parity.max_abs_difference < 1e-4


def test_manifest_says_what_was_exported_from_what_with_which_tools(exported) -> None:
    model, artifact = exported
    manifest = json.loads((artifact.folder / MANIFEST).read_text())
    assert manifest["entry"] == "tiny"
    assert manifest["weights"] == "untrained"
    assert manifest["contract"] == model.contract.name
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert load_artifact(artifact.folder).manifest == artifact.manifest


class Drifting(nn.Module):
    """Agrees with itself while it is traced, and never again: what a broken export looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, DIM)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embedding = self.linear(pixels.mean(dim=(2, 3)))
        return embedding if torch.compiler.is_exporting() else embedding.flip(1)


def test_towers_that_disagree_with_torch_are_refused_by_name_and_kept(tmp_path) -> None:
    model = tiny_model("lpcvc2026_sample")
    model.image_encoder.tower = Drifting()
    with pytest.raises(ExportError, match=r"image_encoder\.onnx: worst cosine"):
        export(model, tmp_path)
    assert (tmp_path / "image_encoder.onnx").is_file()
    assert (tmp_path / REJECTED).is_file()
    with pytest.raises(ExportError, match="holds no"):
        load_artifact(tmp_path)
    export(tiny_model("lpcvc2026_sample"), tmp_path)
    assert load_artifact(tmp_path)
    assert not (tmp_path / REJECTED).exists()


def test_a_tower_that_gives_nan_does_not_pass_the_gate(tmp_path) -> None:
    model = tiny_model("lpcvc2026_sample")
    nn.init.constant_(model.text_encoder.tower.projection.weight, float("nan"))
    with pytest.raises(ExportError, match=r"text_encoder\.onnx"):
        export(model, tmp_path)
    kept = (tmp_path / REJECTED).read_text()
    json.loads(kept, parse_constant=pytest.fail)  # NaN is not JSON
    assert np.isnan(Manifest.model_validate_json(kept).tower("text").parity.min_cosine)


class Unexportable(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.ones(1, DIM) if ids.sum() > 5 else torch.zeros(1, DIM)


def test_a_tower_that_cannot_be_exported_is_an_error_that_names_it(tmp_path) -> None:
    model = tiny_model("lpcvc2026_sample")
    whole = export(model, tmp_path)
    model.text_encoder.tower = Unexportable()
    with pytest.raises(ExportError, match="The text tower does not export"):
        export(model, tmp_path)
    assert load_artifact(tmp_path).manifest == whole.manifest  # what lay there is as it was


def test_a_tower_above_two_gigabytes_is_refused_before_any_work(tmp_path) -> None:
    model = tiny_model("lpcvc2026_sample")
    with torch.device("meta"):
        model.image_encoder.tower = nn.Linear(25_000, 25_000)
    with pytest.raises(ExportError, match=r"2\.5 GB; one ONNX file must stay below 2 GB"):
        export(model, tmp_path)


def test_a_damaged_tower_is_not_loaded(exported, tmp_path) -> None:
    _, artifact = exported
    for path in artifact.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "text_encoder.onnx").write_bytes(b"cut short")
    with pytest.raises(ExportError, match="sha256 differs"):
        load_artifact(tmp_path)
    (tmp_path / "text_encoder.onnx").unlink()
    with pytest.raises(ExportError, match="is missing"):
        load_artifact(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(ExportError, match="not a valid manifest"):
        load_artifact(tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ExportError, match="not a valid manifest"):
        load_artifact(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for taken in ("file", "file/x/y", "dangling"):
        with pytest.raises(ExportError, match="can't be written: expected a folder"):
            export(tiny_model(), tmp_path / taken)
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
