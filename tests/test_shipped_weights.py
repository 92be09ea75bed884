"""The weights that come with the package: small, described, and never trained on the benchmark."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from lpcvc_zoo import build, evaluate, get_entry, list_models
from lpcvc_zoo.backbones._conse import ConSETower
from lpcvc_zoo.bench.plan import UNTRAINED, select
from lpcvc_zoo.bench.steps import weights
from lpcvc_zoo.data import SHIPPED
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.training.guard import benchmark_captions, benchmark_images
from lpcvc_zoo.weights.identity import identity_of
from lpcvc_zoo.weights.load import load

TRAINED_ON = Path(__file__).parent.parent / "benchmarks" / "recipes" / "trained_on"
MODELS = [name for name in list_models(pretrained=True) if get_entry(name).pretrained[0].shipped]
CHEAPEST = "efficientnet_lite0_128_text_xxs"
FILES = sorted(SHIPPED.glob("*.safetensors"))


def test_every_file_is_used_small_and_described() -> None:
    used = {file for name in MODELS for file in get_entry(name).pretrained[0].shipped or ()}
    assert {path.name for path in FILES} == used
    assert all(path.stat().st_size <= 12e6 for path in FILES)
    assert sum(path.stat().st_size for path in FILES) <= 45e6
    for path in FILES:
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        for heading in ("## Data", "## How it was made", "## Results", "## Limits"):
            assert heading in card, f"{path.stem}.md lacks {heading}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_matrices_are_half_precision_and_nothing_is_lost_in_it(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            tensor = file.get_tensor(name)
            if tensor.ndim > 1:
                assert tensor.dtype == torch.float16, name
                assert tensor.isfinite().all(), name


@pytest.mark.parametrize("path", sorted(TRAINED_ON.glob("*.txt.gz")), ids=lambda path: path.name)
def test_the_benchmark_was_never_trained_on(path: Path) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    trained_on = {tuple(line.split()) for line in lines}
    assert len(trained_on) > 1000
    digits = len(lines[0].split()[1])
    secret = {("image", sha[:digits]) for sha in benchmark_images()}
    secret |= {("text", sha[:digits]) for sha in benchmark_captions()}
    assert not trained_on & secret


def test_conse_is_the_mean_of_class_embeddings_under_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4], [0.0, 1e4, 0.0]])
    tower = ConSETower(nn.Identity(), classes=3, embed_dim=2)
    with torch.no_grad():
        tower.class_embeddings.weight.copy_(torch.tensor([[1.0, 3.0, 99.0], [0.0, 2.0, 99.0]]))
        assert torch.equal(tower(logits), torch.tensor([[2.0, 1.0], [3.0, 2.0]]))


def test_towers_are_shared_between_entries_and_named_in_results() -> None:
    first, second = (load(get_entry(f"efficientnet_lite0_{size}_text_xs"), True) for size in (160, 224))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert first.label == second.label
    assert first.label.startswith("conse_minilm@")


def test_another_file_is_another_checkpoint_and_a_missing_one_says_so(tmp_path, monkeypatch) -> None:
    entry = get_entry(CHEAPEST)
    before = identity_of(entry, True)
    shutil.copytree(SHIPPED, tmp_path / "weights")
    monkeypatch.setattr("lpcvc_zoo.weights.fetch.SHIPPED", tmp_path / "weights")
    assert identity_of(entry, True) == before
    shutil.copy(tmp_path / "weights" / "text_xs.safetensors", tmp_path / "weights" / "text_xxs.safetensors")
    assert identity_of(entry, True) != before
    with pytest.raises(WeightsError, match="does not fit"):
        build(CHEAPEST, pretrained=True)
    (tmp_path / "weights" / "text_xxs.safetensors").unlink()
    with pytest.raises(WeightsError, match="Install it again"):
        build(CHEAPEST, pretrained=True)


def test_a_fresh_machines_default_sweep_has_five_models_far_above_chance_and_cards_say_so() -> None:
    tables = (SHIPPED / "efficientnet_lite0.md", Path(__file__).parent.parent / "README.md")
    stated = [
        dict(
            re.findall(
                r"\| `(\w+)` \| [\d.]+ \(([\d.]+) to [\d.]+\), chance 0.021 \|", path.read_text("utf-8")
            )
        )
        for path in tables
    ]
    swept = select([get_entry(name) for name in list_models()], weights=lambda entry: weights(entry, None))
    trained = {entry.name for entry, chosen in swept if chosen != UNTRAINED}
    assert set(MODELS) <= trained
    assert stated[0].items() <= stated[1].items()
    assert set(MODELS) == stated[1].keys()
    assert sum(float(low) > 5 * 0.021 for name, low in stated[1].items() if name in trained) >= 5


def test_recall_is_what_the_card_says() -> None:
    """The cheapest model's, from files to score, on the whole benchmark."""
    card = (SHIPPED / "efficientnet_lite0.md").read_text(encoding="utf-8")
    stated = re.search(rf"\| `{CHEAPEST}` \| ([\d.]+) ", card)
    assert stated is not None
    result = evaluate(build(CHEAPEST, pretrained=True), "photos")
    assert result.recall(10).value == pytest.approx(float(stated[1]), abs=0.006)
    assert result.recall(10).low > 3 * result.recall(10).chance
