"""The shortest text length that loses nothing: what is tried, what is chosen, and where it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from tiny import DIM, tiny_model
from torch import Tensor, nn

from lpcvc_zoo import registry
from lpcvc_zoo.backbones._towers import TextTower
from lpcvc_zoo.cli import main
from lpcvc_zoo.cli.lengths import print_choice
from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.exporting.artifact import load_artifact
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.evaluate import evaluate
from lpcvc_zoo.retrieval.lengths import LENGTHS, evaluate_lengths
from lpcvc_zoo.retrieval.records import RetrievalDataset

SAMPLE = "lpcvc2026_sample"
SMALL = "efficientvit_m0_text_s"


@pytest.fixture(scope="module")
def data() -> RetrievalDataset:
    whole = load_dataset("photos")
    texts = max(index for items in whole.positives[:6] for index in items) + 1
    return replace(
        whole,
        name="six photos",
        images=whole.images[:6],
        texts=whole.texts[:texts],
        positives=whole.positives[:6],
    )


class Ids(nn.Module):
    """An embedding of the ids at some places alone; places past the end of the sequence are 0."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        self.places = places
        self.embedding = nn.Embedding(49408, DIM)

    def forward(self, ids: Tensor) -> Tensor:
        seen = [place for place in self.places if place < ids.shape[1]]
        result: Tensor = self.embedding(ids[:, seen]).sum(dim=1)
        return result


def model_with(text: nn.Module, spec: TextSpec, weights: str = "tiny") -> DualEncoder:
    model = tiny_model(SAMPLE, text=spec)
    model.text_encoder.tower, model.weights = text.eval(), weights
    return model


def causal_model(text_length: int | None = None) -> DualEncoder:
    torch.manual_seed(0)
    built = open_clip.transformer.TextTransformer(width=64, heads=1, layers=1, output_dim=DIM)
    model = tiny_model(SAMPLE, text=TextSpec(pad_id=0), text_length=text_length)
    model.text_encoder.tower = TextTower(built, 49407).eval()
    return model


def test_a_causal_tower_is_cut_to_what_no_text_exceeds_and_embeds_the_same(data: RetrievalDataset) -> None:
    found = evaluate_lengths(causal_model(), data)
    choice = found.choice
    assert (choice.longest_text, choice.text_length, choice.exact) == (16, 16, True)
    assert found.scores[16] == found.scores[77] == evaluate(causal_model(16), data)
    texts = torch.from_numpy(causal_model().contract.prepare_text(data.texts))
    with torch.inference_mode():
        whole, cut, shorter = (causal_model(length).encode_text(texts) for length in (None, 16, 12))
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)
    assert (shorter - whole).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("words", "longest", "chosen"), [(17, 19, 20), (18, 20, 20), (19, 21, 24), (74, 76, 76), (90, 77, 77)]
)
def test_a_causal_tower_gets_its_longest_texts_own_length_rounded_up(
    words: int, longest: int, chosen: int, data: RetrievalDataset, capsys
) -> None:
    """Beside the lengths that were asked for; a text beyond the context keeps the full length."""
    given = replace(data, texts=(*data.texts[:-1], "word " * words))
    choice = evaluate_lengths(causal_model(), given, lengths=(8,)).choice
    assert (choice.longest_text, choice.text_length) == (longest, chosen)
    assert list(choice.recall) == sorted({8, chosen, 77})
    print_choice(choice)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{chosen} tokens: no text has more than {longest} tokens" in said
    assert ("suits an NPU (lint's rule narrow-product)" in said) == (chosen > longest)


def test_an_untrained_tower_that_is_not_causal_is_refused(data: RetrievalDataset) -> None:
    """Its recall is chance, which would choose; a causal one's length needs no recall."""
    model = model_with(Ids(1, 2), TextSpec(pad_id=0, causal=False), weights="untrained")
    with pytest.raises(ContractError, match=r"weights: expected trained ones: .* not causal"):
        evaluate_lengths(model, data)
    assert causal_model().weights == "untrained"
    assert evaluate_lengths(causal_model(), data).choice.exact


@pytest.mark.parametrize("seed", range(3))
def test_another_tower_is_cut_as_far_as_no_recall_falls(data: RetrievalDataset, seed: int) -> None:
    torch.manual_seed(seed)
    found = evaluate_lengths(model_with(Ids(1, 2, 3, 4, 5, 10), TextSpec(pad_id=0, causal=False)), data)
    chosen, tried = found.choice.text_length, list(found.scores)
    assert tried == list(LENGTHS)
    assert not found.choice.exact

    def falls(length: int) -> bool:
        pairs = zip(found.scores[length].recalls, found.scores[77].recalls, strict=True)
        return any(cut.value < whole.value for cut, whole in pairs)

    assert [falls(length) for length in tried if length <= chosen] == [
        length < chosen for length in tried if length <= chosen
    ]
    assert chosen <= 12  # the tower looks no further
    recalls = {length: scores.recall(10).value for length, scores in found.scores.items()}
    assert found.choice.recall == recalls


def test_lengths_end_at_the_towers_context_and_images_are_embedded_once(data: RetrievalDataset) -> None:
    spec = TextSpec(context_length=20, pad_id=0, causal=False)
    model = model_with(Ids(1, 2), spec)
    seen: list[int] = []
    model.image_tower.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    told: list[tuple[int, int]] = []
    found = evaluate_lengths(model, data, progress=lambda done, total: told.append((done, total)))
    assert list(found.scores) == [8, 12, 16, 20]
    assert sum(seen) == len(data.images)
    total = len(data.images) + 4 * len(data.texts)
    assert told[-1] == (total, total)


def test_a_length_that_no_tower_can_take_is_refused(data: RetrievalDataset) -> None:
    with pytest.raises(ContractError, match="text_length: expected 3 to 77 tokens"):
        evaluate_lengths(causal_model(), data, lengths=(2,))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiny causal model in the place of every other; a folder with two photos to score it on."""
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "build", lambda name, **options: causal_model(options["text_length"]))
    folder = tmp_path / "two"
    folder.mkdir()
    names = ("panda.jpg", "moose.jpg")
    for name in names:
        (folder / name).write_bytes((PHOTOS / "images" / name).read_bytes())
    lines = [f"{name},{name[0]} number {index} of {name[:4]}." for name in names for index in range(6)]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    return folder


def test_the_command_finds_the_length_scores_and_records_it(small: Path, capsys) -> None:
    asked = ["evaluate", SMALL, "--contract", SAMPLE, "--dataset", str(small)]
    printed = []
    for more in ([], ["--target", "onnxruntime"]):
        with pytest.raises(SystemExit, match="0"):
            main([*asked, "--text-length", "auto", "--json", *more])
        printed.append(json.loads(capsys.readouterr().out))
    choice = printed[0].pop("text_length_choice")
    assert (choice["text_length"], choice["dataset"], choice["exact"]) == (12, "two", True)
    assert choice["recall"].keys() == {str(length) for length in LENGTHS}
    assert printed[1].pop("text_length_choice") == choice
    np.testing.assert_equal(printed[0], printed[1])  # scored once in torch, once by ONNX Runtime
    made = cached_export(SMALL, pretrained=False, contract=SAMPLE, image_size=None, text_length=12)
    assert printed[0]["artifact"] == str(made.folder)
    recorded = load_artifact(made.folder).manifest
    assert (recorded.text_length, recorded.text_depth) == (12, 1)
    assert recorded.text_length_choice is not None
    assert recorded.text_length_choice.model_dump(mode="json") == choice
    with pytest.raises(SystemExit, match="0"):
        main([*asked, "--text-length", "auto"])
    said = capsys.readouterr().out
    assert "chosen" in said
    assert "12 tokens: no text has more than" in said
    assert f"with this choice in its manifest: {made.folder}" in said


def test_an_export_finds_its_length_and_says_why_in_its_manifest(small: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "made"
    found_on = ["--text-length", "auto", "--dataset", str(small)]
    with pytest.raises(SystemExit, match="0"):
        main(["export", SMALL, "--contract", SAMPLE, *found_on, "--out", str(out)])
    assert "12 tokens: no text has more than" in capsys.readouterr().out
    manifest = load_artifact(out).manifest
    assert manifest.text_length == 12
    assert manifest.text_length_choice is not None
    assert (manifest.text_length_choice.text_length, manifest.text_length_choice.dataset) == (12, "two")


@pytest.mark.parametrize(
    ("length", "said"), [("atuo", "expected a number of tokens or auto"), ("0", "3 to 77")]
)
def test_a_length_that_is_neither_a_number_nor_auto_is_refused(
    length: str, said: str, small: Path, capsys
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", SMALL, "--contract", SAMPLE, "--dataset", str(small), "--text-length", length])
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
