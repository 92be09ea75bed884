"""How a run goes on: the rate rises and falls, the average is what is kept, and the time left is shown."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.nn import functional
from training_tiny import NAME, drawings

from lpcvc_zoo.model import Towers, unit_length
from lpcvc_zoo.training import reading
from lpcvc_zoo.training.losses import SIGLIP_BIAS, Embedded, Objective
from lpcvc_zoo.training.progress import RunProgress
from lpcvc_zoo.training.recipe import Loss, checked
from lpcvc_zoo.training.run import train
from lpcvc_zoo.training.steps import Stepper
from lpcvc_zoo.training.validate import Validation

pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data") / "boxes")


def recipe(data: Path, **optimiser: object):
    document = {
        "model": NAME, "contract": "lpcvc2026_sample", "epochs": 5, "batch_size": 8,
        "data": {"pairs": str(data), "hold_out": 0.25}, "optimiser": optimiser,
    }  # fmt: skip
    return checked(document, "test")


def test_the_rate_rises_by_a_line_and_falls_by_a_cosine(data, tmp_path) -> None:
    train(recipe(data, lr=0.01, final_lr=0.001, warmup=0.4), tmp_path / "run")
    with (tmp_path / "run" / "steps.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    steps, warm = 10, 4
    assert len(rates) == steps
    assert rates[:warm] == pytest.approx([0.01 * step / warm for step in range(1, warm + 1)])
    shares = [step / (steps - warm + 1) for step in range(steps - warm + 1)]
    falling = [0.001 + 0.009 * (1 + math.cos(math.pi * share)) / 2 for share in shares]
    assert rates[warm - 1 :] == pytest.approx(falling)
    assert rates[-1] < 0.002


def test_the_average_of_the_weights_is_what_is_validated_and_kept(data, tmp_path, monkeypatch) -> None:
    """Against an average by hand; while a run is young, timm's warm-up lets it follow faster."""
    decay, by_hand, validated = 0.8, {}, []
    step, recall = Stepper.step, Validation.recall

    def watched(self: Stepper, batch):
        if not by_hand:
            by_hand.update({key: value.clone() for key, value in self.student.towers.state_dict().items()})
        values = step(self, batch)
        share = min(decay, 1 - self.taken ** (-2 / 3))
        for key, value in self.student.towers.state_dict().items():
            by_hand[key] = share * by_hand[key] + (1 - share) * value
        return values

    def noted(self: Validation, towers: Towers):
        validated.append({key: value.clone() for key, value in towers.state_dict().items()})
        return recall(self, towers)

    monkeypatch.setattr(Stepper, "step", watched)
    monkeypatch.setattr(Validation, "recall", noted)
    train(recipe(data, lr=0.01, ema=decay), tmp_path / "run")
    kept = load_file(tmp_path / "run" / "last.safetensors")
    assert kept.keys() == by_hand.keys()
    for key, mean in by_hand.items():
        torch.testing.assert_close(validated[-1][key], mean, rtol=1e-4, atol=1e-6)
        assert kept[key].equal(validated[-1][key])


def test_siglip_is_the_mean_of_two_class_losses_over_all_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    image, text = (unit_length(torch.randn(5, 6, generator=random)) for _ in range(2))
    objective = Objective([Loss(kind="siglip")], 6, {})
    said = objective(Embedded(image=image, text=text.unsqueeze(1)), {}, torch.tensor(math.log(7.0)))
    chance = torch.sigmoid(7 * image @ text.T + SIGLIP_BIAS)
    cost = functional.binary_cross_entropy(chance, torch.eye(5), reduction="none")
    torch.testing.assert_close(said["loss"], cost.sum() / 5)


# What is shown


@pytest.mark.parametrize(
    ("seconds", "lines", "last"),
    [
        (0.7, 1, "training: 44 of 100, about 39 s left  loss 0.5000"),
        (60, 50, "training: 51 of 100, about 49 min left  loss 0.5000"),
        (3600, 50, "training: 51 of 100, about 49.0 h left  loss 0.5000"),
    ],
)
def test_without_a_terminal_a_line_each_half_minute_says_what_time_is_left(
    monkeypatch, seconds, lines, last
) -> None:
    """51 of 100 steps at an even pace."""
    shown, now = io.StringIO(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with RunProgress(Console(file=shown)) as progress:
        for done in range(1, 52):
            progress.at("training", done, 100, "loss 0.5000")
            now += seconds
    said = shown.getvalue().splitlines()
    assert (len(said), said[-1]) == (lines, last)


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    shown = io.StringIO()
    with RunProgress(Console(file=shown, force_terminal=True, width=120)) as progress:
        progress.at("training", 1, 4)
        time.sleep(0.05)
        progress.at("training", 2, 4, "loss 0.5000")
        assert progress._live is not None
        progress._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert re.search(r"training .*2/4 0:00:0\d left  loss 0.5000", text)


@pytest.mark.parametrize(("worth", "said"), [(1e9, False), (50_000, True)])
def test_a_large_cache_of_pixels_is_announced(data, tmp_path, monkeypatch, worth, said) -> None:
    """18 images of 32 x 32 take 55 KB."""
    monkeypatch.setattr(reading, "WORTH_SAYING", worth)
    shown = io.StringIO()
    train(recipe(data), tmp_path / "run", console=Console(file=shown))
    assert ("The images' pixels take 0.0 GB in" in shown.getvalue()) == said
