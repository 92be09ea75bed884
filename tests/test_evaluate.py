"""Scoring: torch, export and compiled towers agree, memory stays small, and what is broken is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIM, tiny_model

from lpcvc_zoo import evaluate as public_evaluate
from lpcvc_zoo.bench.plan import Cell
from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.contract import CONTRACTS, TOWERS, Tower, get_contract
from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.onnx import export
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.evaluate import CompiledPair, evaluate
from lpcvc_zoo.retrieval.metrics import Scores, score
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets import get_target
from lpcvc_zoo.targets.base import Array, Compiled

SAMPLE = get_contract("lpcvc2026_sample")


def some_photos(count: int = 12) -> RetrievalDataset:
    data = load_dataset("photos")
    positives = data.positives[:count]
    texts = max(index for items in positives for index in items) + 1
    return RetrievalDataset("some photos", data.images[:count], data.texts[:texts], positives)


@pytest.fixture(scope="module")
def data() -> RetrievalDataset:
    return some_photos()


@pytest.fixture(scope="module", params=CONTRACTS)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[DualEncoder, Artifact]:
    model = tiny_model(request.param)
    return model, export(model, tmp_path_factory.mktemp("exported"))


class Answers:
    """A target whose towers are functions from a prepared batch to embeddings."""

    name = device = "answers"
    exclusive = False

    def __init__(self, **towers: Any) -> None:
        self.towers = {tower: towers.get(tower, distinct) for tower in TOWERS}
        self.batches: list[tuple[str, int]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"target": self.name}

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        return Compiled(target=self.name, device=self.device, tower=tower, reference="x", source_sha256="0")

    def profile(self, compiled: Compiled) -> Any:
        raise AssertionError("scoring measures nothing")

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        (batch,) = inputs.values()
        self.batches.append((compiled.tower, len(batch)))
        return {f"{compiled.tower}_embedding": self.towers[compiled.tower](batch)}

    def pair(self) -> CompiledPair:
        return CompiledPair(self, {tower: self.compile(Path(), tower) for tower in TOWERS})


def distinct(batch: Array) -> Array:
    """Unit vectors that follow from the input's content."""
    seeds = [int(np.abs(item.astype(np.float64)).sum()) for item in batch]
    rows = np.array([np.random.default_rng(seed).normal(size=DIM) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def spoilt(row: int, value: float) -> Any:
    """The embeddings of ``distinct``, but for one number of the batch whose size is 5."""

    def answer(batch: Array) -> Array:
        result = distinct(batch)
        if len(batch) == 5:
            result[row, 0] = value
        return result

    return answer


# ---- one code path


def test_torch_export_and_compiled_towers_score_alike(
    both: tuple[DualEncoder, Artifact], data: RetrievalDataset, tmp_path: Path
) -> None:
    model, artifact = both
    target = get_target("onnxruntime", threads=1)
    pair = CompiledPair(target, {tower: target.compile(artifact.path(tower), tower) for tower in TOWERS})
    found: list[Scores] = []
    for name, what in {"torch": model, "export": artifact, "compiled": pair}.items():
        scores = evaluate(what, data, contract=model.contract, save_embeddings=tmp_path / name)
        found.append(scores)
        assert (scores.dataset, scores.images, scores.texts) == ("some photos", 12, len(data.texts))
        with np.load(tmp_path / name) as one, np.load(tmp_path / "torch") as other:
            for tower in TOWERS:
                key = f"{tower}_embeddings"
                np.testing.assert_allclose(one[key], other[key], atol=1e-5)
    assert found[1] == found[2]
    # A rounding error may swap two neighbours in one image's list.
    for ours, theirs in zip(found[0].recalls, found[1].recalls, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=0.5 / 12)


def test_the_sweep_scores_with_the_artifact_s_own_contract(
    both: tuple[DualEncoder, Artifact], data: RetrievalDataset
) -> None:
    model, artifact = both
    target = get_target("onnxruntime", threads=1)
    compiled = {tower: target.compile(artifact.path(tower), tower) for tower in TOWERS}
    tools = Tools()
    scores = tools.score(artifact, target, compiled, data)
    assert scores == evaluate(artifact, data)
    assert tools.chance(data, model.contract.name) == pytest.approx(scores.recall().chance)
    cell = Cell(model.entry, "untrained", model.contract.name, target, "x", dataset=tools.fingerprint(data))
    assert cell.key != cell.id


def test_scores_are_those_of_the_embeddings_one_by_one(data: RetrievalDataset) -> None:
    model = tiny_model(SAMPLE.name)
    with torch.inference_mode():
        images = [model.encode_image(SAMPLE.prepare_image(path)).numpy() for path in data.images]
        texts = [model.encode_text(SAMPLE.prepare_text(text)).numpy() for text in data.texts]
    expected = score(np.concatenate(images), np.concatenate(texts), data)
    got = evaluate(model, data, batch_size=5)
    assert got.recalls == pytest.approx(expected.recalls)
    assert isinstance(got, Scores)


def test_a_model_that_knows_the_answers_scores_one(data: RetrievalDataset) -> None:
    one_text = RetrievalDataset(
        "one each", data.images, tuple(f"text {n}" for n in range(12)), tuple((n,) for n in range(12))
    )
    seen = {"image": 0, "text": 0}

    def oracle(tower: str) -> Any:
        def answer(batch: Array) -> Array:
            rows = np.eye(12, dtype=np.float32)[seen[tower] : seen[tower] + len(batch)]
            seen[tower] += len(batch)
            return rows

        return answer

    scores = evaluate(Answers(image=oracle("image"), text=oracle("text")).pair(), one_text, contract=SAMPLE)
    assert {recall.value for recall in scores.recalls} == {1.0}


def test_a_dataset_may_be_given_by_name_and_the_function_is_public(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("a.png,a dog.\nb.png,a cat.\n")
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    scores = public_evaluate(tiny_model(SAMPLE.name), tmp_path)
    assert (scores.images, scores.texts, {recall.k for recall in scores.recalls}) == (2, 2, {1})


def test_a_training_model_is_scored_as_in_use_and_given_back(data: RetrievalDataset) -> None:
    model = tiny_model(SAMPLE.name)
    model.text_encoder.tower = torch.nn.Sequential(model.text_tower, torch.nn.Dropout(0.5))
    expected = evaluate(model, data)
    model.train()
    assert evaluate(model, data) == expected
    assert model.training


def test_images_are_prepared_a_few_at_a_time_and_progress_is_told(data: RetrievalDataset) -> None:
    target, steps = Answers(), []
    total = len(data.images) + len(data.texts)
    evaluate(target.pair(), data, contract=SAMPLE, batch_size=5, progress=lambda *step: steps.append(step))
    assert [size for tower, size in target.batches if tower == "image"] == [5, 5, 2]
    assert max(size for _, size in target.batches) == 5
    assert steps[:3] == [(5, total), (10, total), (12, total)]
    assert steps[-1] == (total, total)
    assert len(steps) == len(target.batches)


# ---- what is broken is named


@pytest.mark.parametrize(
    ("value", "field", "got"),
    [(float("nan"), "values", "1 NaN"), (float("inf"), "values", "1 NaN"), (9.0, "length", "9.")],
)
@pytest.mark.parametrize("tower", TOWERS)
def test_a_bad_embedding_names_its_tower_and_its_image_or_text(
    tower: Tower, value: float, field: str, got: str, data: RetrievalDataset
) -> None:
    target = Answers(**{tower: spoilt(3, value)})
    with pytest.raises(ContractError) as caught:
        evaluate(target.pair(), data, contract=SAMPLE, batch_size=5)
    culprit = data.images[3].name if tower == "image" else data.texts[3]
    assert caught.value.field == f"{tower} embedding.{field}"
    assert got in caught.value.got
    assert culprit in caught.value.got


@pytest.mark.parametrize("tower", TOWERS)
def test_a_constant_tower_is_an_error_and_no_score(tower: Tower, data: RetrievalDataset) -> None:
    def constant(batch: Array) -> Array:
        return np.full((len(batch), DIM), DIM**-0.5, np.float32)

    with pytest.raises(
        ContractError, match=f"{tower} embedding: expected different ones .* the same for all"
    ):
        evaluate(Answers(**{tower: constant}).pair(), data, contract=SAMPLE)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: distinct(batch)[:1], r"image embedding\.shape: expected 8 rows, got 1"),
        (lambda batch: distinct(batch)[..., None], r"image embedding\.shape: expected \[N, D\]"),
        (lambda batch: distinct(batch).astype(np.float64), r"image embedding\.dtype: expected float32"),
        (lambda batch: distinct(batch).tolist(), r"image embedding: expected a numpy array, got list"),
    ],
)
def test_embeddings_of_another_form_are_an_error(answer: Any, message: str, data: RetrievalDataset) -> None:
    with pytest.raises(ContractError, match=message):
        evaluate(Answers(image=answer).pair(), data, contract=SAMPLE)


def test_towers_of_two_sizes_are_an_error(data: RetrievalDataset) -> None:
    def shorter(batch: Array) -> Array:
        return np.tile(np.array([[0.6, 0.8]], np.float32), (len(batch), 1))

    with pytest.raises(ContractError, match=rf"text embedding\.shape: expected \[N, {DIM}\]"):
        evaluate(Answers(text=shorter).pair(), data, contract=SAMPLE)


def test_an_output_of_another_name_is_an_error(data: RetrievalDataset) -> None:
    target = Answers()
    infer = target.infer
    target.infer = lambda compiled, inputs: {"output_0": infer(compiled, inputs).popitem()[1]}  # type: ignore[method-assign]
    with pytest.raises(ContractError, match="expected an output 'image_embedding', got outputs"):
        evaluate(target.pair(), data, contract=SAMPLE)


@pytest.mark.parametrize(
    ("name", "contract", "reason"),
    [
        ("torn.jpg", SAMPLE.name, "a whole image that Pillow can read"),
        ("text.jpg", SAMPLE.name, "a whole image that Pillow can read"),
        ("thin.png", "lpcvc2026", "an aspect ratio of at most 1024:1"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(name: str, contract: str, reason: str, tmp_path: Path) -> None:
    whole = (PHOTOS / "images" / "aqueduct.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (3000, 1)).save(tmp_path / "thin.png")
    data = RetrievalDataset("bad", (tmp_path / name,), ("a dog.",), ((0,),))
    with pytest.raises(ContractError, match=reason) as caught:
        evaluate(tiny_model(contract), data)
    assert str(tmp_path / name) in str(caught.value)


def test_what_cannot_be_scored_is_said(data: RetrievalDataset, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="expected a DualEncoder, an export's Artifact or a CompiledPair"):
        evaluate("mobileclip_s0", data)  # type: ignore[arg-type]
    with pytest.raises(
        ContractError, match="contract: expected the contract that the towers were made under"
    ):
        evaluate(Answers().pair(), data)
    with pytest.raises(ContractError, match="expected 'lpcvc2026_sample', which the model was made under"):
        evaluate(tiny_model(SAMPLE.name), data, contract="lpcvc2026")
    with pytest.raises(ContractError, match="batch_size: expected 1 or more, got 0"):
        evaluate(tiny_model(SAMPLE.name), data, batch_size=0)


# ---- saved embeddings


def test_saved_embeddings_hold_all_that_scoring_them_again_takes(
    data: RetrievalDataset, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "embeddings"  # numpy would add .npz to this name
    model = tiny_model(SAMPLE.name)
    scores = evaluate(model, data, save_embeddings=path)
    assert [item.name for item in path.parent.iterdir()] == ["embeddings"]
    with np.load(path, allow_pickle=False) as saved:
        images, texts = saved["image_embeddings"], saved["text_embeddings"]
        assert saved["image_files"].tolist() == [image.name for image in data.images]
        assert saved["texts"].tolist() == list(data.texts)
        links = [(image, text) for image, items in enumerate(data.positives) for text in items]
        assert list(map(tuple, saved["links"].tolist())) == links
        identity, about = json.loads(str(saved["model"])), json.loads(str(saved["dataset"]))
    assert images.dtype == texts.dtype == np.float32
    assert images.shape == (len(data.images), DIM)
    assert score(images, texts, data) == scores
    assert identity == {
        "entry": "tiny", "weights": "untrained", "text_length": 77, "text_depth": None,
        "contract": SAMPLE.name, "torch": torch.__version__,
    }  # fmt: skip
    assert about["fingerprint"] == data.fingerprint()


def test_saved_embeddings_of_compiled_towers_say_which_files_and_target(
    data: RetrievalDataset, tmp_path: Path
) -> None:
    path = tmp_path / "e.npz"
    evaluate(Answers().pair(), data, contract=SAMPLE, save_embeddings=path)
    with np.load(path) as saved:
        identity = json.loads(str(saved["model"]))
    assert identity["target"] == {"target": "answers"}
    assert {tower: facts["source_sha256"] for tower, facts in identity["towers"].items()} == {
        "image": "0",
        "text": "0",
    }


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    data: RetrievalDataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "e.npz"):
        target = Answers()
        with pytest.raises(DatasetError, match=r"can't be (written|made)"):
            evaluate(target.pair(), data, contract=SAMPLE, save_embeddings=path)
        assert target.batches == []


def test_a_disk_that_fills_up_leaves_the_old_file_whole(
    data: RetrievalDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.npz"
    path.write_text("old")

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DatasetError, match=r"e\.npz: No space left on device"):
        evaluate(Answers().pair(), data, contract=SAMPLE, save_embeddings=path)
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]
