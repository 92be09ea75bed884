"""What was done to a tower before its export: listed, measured, refused where it changed the embeddings."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import open_clip
import pytest
import torch
from tiny import DIM, tiny_entry, tiny_model
from torch import nn

from lpcvc_zoo import registry
from lpcvc_zoo.backbones._towers import TextTower
from lpcvc_zoo.cli import main
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting import graphs
from lpcvc_zoo.exporting import onnx as onnx_room
from lpcvc_zoo.exporting.artifact import MANIFEST, TowerFile, load_artifact
from lpcvc_zoo.exporting.onnx import export
from lpcvc_zoo.exporting.parity import agreement, run_onnx
from lpcvc_zoo.fuse import fuse
from lpcvc_zoo.model import DualEncoder, Towers

SAMPLE = "lpcvc2026_sample"
EOT = 49407


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, DIM),
    )  # fmt: skip


def model_of(text_length: int | None = None, *, pad_id: int = 0, causal: bool = True) -> DualEncoder:
    """A folded image tower and a transformer for text, cut to some length."""
    torch.manual_seed(0)
    built = open_clip.transformer.TextTransformer(
        width=64, heads=1, layers=1, output_dim=DIM, no_causal_mask=not causal
    )
    nn.init.normal_(built.positional_embedding, std=0.1)
    entry = tiny_entry(text=TextSpec(pad_id=pad_id, causal=causal))
    towers = fuse(Towers(convolutional(), TextTower(built, EOT)), entry.image_size, 77)
    return DualEncoder(
        towers, entry, get_contract(SAMPLE), entry.preprocessing, text_length=text_length
    ).eval()


def text_of(model: DualEncoder, folder: Path) -> TowerFile:
    """The record of the text tower alone."""
    made, problem = onnx_room._export_tower(model, "text", folder / "text_encoder.onnx", ())
    assert problem is None
    return made


@pytest.mark.parametrize("rewrites", ["none", "npu"])
def test_the_manifest_lists_folding_cutting_and_pooling_with_what_each_did(rewrites: str, tmp_path) -> None:
    artifact = export(model_of(20), tmp_path, rewrites=rewrites)
    image, text = artifact.manifest.image, artifact.manifest.text
    (fold,) = image.prepared
    cut, pool = text.prepared
    assert (fold.step, fold.places, fold.counted, fold.before - fold.after) == ("fold", 1, "operators", 1)
    assert (cut.step, cut.counted, cut.before, cut.after) == ("cut_text", "tokens", 77, 20)
    assert (pool.step, pool.places, pool.counted, pool.after) == ("pool_at_eot", 1, "nodes", text.nodes)
    assert pool.before == pool.after - 2  # ArgMax, Gather, Squeeze; Equal, Cast, Unsqueeze, MatMul, Squeeze
    for done in (fold, cut, pool):  # no bundled caption is longer, and the tower is causal
        assert done.min_cosine == pytest.approx(1, abs=1e-7)
    assert {effect.rewrite for effect in text.effects} == set(artifact.manifest.rewrites)
    assert load_artifact(tmp_path).manifest == artifact.manifest
    kept = json.loads((tmp_path / MANIFEST).read_text())
    for tower in ("image", "text"):
        del kept[tower]["prepared"]
    (tmp_path / MANIFEST).write_text(json.dumps(kept))
    assert load_artifact(tmp_path).manifest.text.prepared == ()  # as in manifests that are older


def test_a_cut_that_loses_something_is_exported_with_what_it_costs(tmp_path) -> None:
    model, whole = model_of(8), model_of()
    cut, _ = text_of(model, tmp_path).prepared
    captions = onnx_room.parity_inputs(model.contract, "text")
    with torch.no_grad():
        expected, got = ([m.encode_text(text).numpy() for text in captions] for m in (whole, model))
    assert (cut.before, cut.after) == (77, 8)
    assert cut.min_cosine == pytest.approx(agreement(expected, got).min_cosine, abs=1e-6)
    assert cut.min_cosine < 0.99


def test_a_tower_that_sees_its_pads_is_not_the_same_when_it_is_cut(tmp_path) -> None:
    cut, _ = text_of(model_of(20, causal=False), tmp_path).prepared
    assert 0 < cut.min_cosine < 0.9999


def test_nothing_is_listed_where_nothing_was_done(tmp_path) -> None:
    manifest = export(tiny_model(SAMPLE), tmp_path).manifest
    assert manifest.image.prepared == manifest.text.prepared == ()


def test_gathering_at_the_end_of_the_text_is_what_pooling_stands_for(tmp_path) -> None:
    model = model_of(20)
    captions = onnx_room.parity_inputs(model.contract, "text")
    pooled = onnx_room.to_onnx(model.text_encoder, captions[0], "text", "text_embedding", "text")
    gathered = onnx.ModelProto.FromString(pooled.SerializeToString())
    assert graphs.gather_at_eot(gathered) == 1
    onnx.checker.check_model(gathered)
    kinds = [Counter(node.op_type for node in proto.graph.node) for proto in (pooled, gathered)]
    assert (kinds[0]["ArgMax"], kinds[1]["ArgMax"]) == (0, 1)
    assert kinds[1]["Gather"] - kinds[0]["Gather"] == kinds[0]["MatMul"] - kinds[1]["MatMul"] == 1
    np.testing.assert_allclose(
        *(run_onnx(proto.SerializeToString(), captions) for proto in (pooled, gathered)), atol=1e-6
    )
    assert graphs.gather_at_eot(gathered) == 0


def test_pooling_where_the_end_stands_more_than_once_is_refused(tmp_path) -> None:
    with pytest.raises(ExportError, match=r"pool_at_eot changed the embeddings.* pads need another"):
        text_of(model_of(pad_id=EOT), tmp_path)


@pytest.mark.parametrize("cosine", [0.999, float("nan")])
def test_folding_that_changed_the_embeddings_is_refused(cosine: float, tmp_path) -> None:
    model = model_of()
    model.foldings["image"] = replace(model.foldings["image"], cosine=cosine)
    with pytest.raises(ExportError, match=r"fold changed the embeddings.*--no-fuse"):
        export(model, tmp_path)


def test_the_command_shows_them_without_any_rewrite(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(registry, "build", lambda name, **options: model_of(options["text_length"]))
    monkeypatch.setenv("COLUMNS", "140")
    with pytest.raises(SystemExit, match="0"):
        main(["export", "efficientvit_m0_text_s", "--text-length", "20", "--out", str(tmp_path / "made")])
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: row[1:] for row in rows if row and row[0] in ("fold", "cut_text", "pool_at_eot")}
    assert found["fold"][:2] == ["image", "1"]
    assert found["cut_text"] == ["text", "1", "77", "20", "tokens", "1.0000000"]
    assert found["pool_at_eot"][-2:] == ["nodes", "1.0000000"]
