"""The benchmark that holds our exports against plain ones on the CPU."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lpcvc_zoo import Towers, get_entry
from lpcvc_zoo.backbones._mct import HybridTextTower
from lpcvc_zoo.backbones._towers import small_text_tower
from lpcvc_zoo.backbones.text_transformer import TINY
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.registry import untrained

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import export_speed

    return export_speed


def hybrid() -> nn.Module:
    return HybridTextTower(
        width=64, heads=1, layers=1, embed_dim=8, context_length=20, vocab_size=49408, eot_id=49407
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_text_tower(TINY, TextSpec(), 8),
        lambda: small_text_tower(TINY, TextSpec(context_length=20, causal=False), 8),
        hybrid,
    ],
    ids=["causal", "20 tokens, not causal", "hybrid"],
)
def test_the_plain_form_of_every_text_tower_gives_the_towers_own_embedding(script, make) -> None:
    tower = make().eval()
    plain = script.PlainText(tower)
    ids = torch.zeros(2, plain.positions, dtype=torch.int64)
    ids[:, :4] = torch.tensor([[49406, 320, 1929, 49407], [49406, 2368, 49407, 0]])
    with torch.inference_mode():
        torch.testing.assert_close(plain(ids), tower(ids))


@pytest.fixture
def no_fastpath() -> Iterator[None]:
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it can't be exported
    yield
    torch.backends.mha.set_fastpath_enabled(was)


@pytest.mark.usefixtures("no_fastpath")
def test_a_tower_of_less_than_77_positions_is_exported_with_its_own_number(
    script, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(script, "ours", lambda *args, **options: (None, "text_length" in options))
    name = "efficientnet_lite0_96_text_xxs"
    encoder = script.PlainText(untrained(get_entry(name)).text).eval()
    runs = script.text_runs(name, encoder, tmp_path, 16)
    torch.testing.assert_close(torch.from_numpy(runs["plain"]()[0]), runs["torch"](), rtol=1e-3, atol=1e-5)
    cut = "ours, 16 tokens"
    assert set(runs) == {"plain", "ours", cut, f"{cut}, pooled early", "torch", script.COMPILED}


def test_however_slow_a_variant_is_its_median_is_of_three_runs_in_each_round(script) -> None:
    now, seen = [0.0], []

    def run() -> None:
        seen.append(now[0])
        now[0] += len(seen)  # seconds, more each time

    found = script.measure({"plain": run}, 2, lambda: now[0])
    assert found == {"plain": [5000.0, 8000.0]}  # runs 4 to 6 and 7 to 9, after three that warm up


def pretend(script, monkeypatch: pytest.MonkeyPatch, path: Path, texts: dict[str, nn.Module]) -> None:
    """Towers that take no time to measure; main() is run of all models in ``texts``."""
    monkeypatch.setattr(script, "ROUND_S", 0.0)
    monkeypatch.setattr(script, "get_entry", lambda name: get_entry("efficientnet_lite0_96_text_xxs"))
    names = iter(texts)
    monkeypatch.setattr(script, "untrained", lambda entry: Towers(nn.Identity(), texts[next(names)]))
    monkeypatch.setattr(script, "image_runs", lambda *args: {"plain": lambda: None})
    monkeypatch.setattr(script, "text_runs", lambda *args: {"plain": lambda: None})
    monkeypatch.setattr(script, "worst_cosine", lambda *args: 1.0)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(torch.backends.mha, "set_fastpath_enabled", lambda value: None)
    given = ["--rounds", "1", "--threads", "1", "--out", str(path), "--models", *texts]
    monkeypatch.setattr("sys.argv", ["export_speed.py", *given])


def measured(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["model"], row["tower"]) for row in csv.DictReader(file)]


def test_a_tower_without_a_plain_form_is_refused_before_anything_is_measured(
    script, monkeypatch, tmp_path, capsys
) -> None:
    path = tmp_path / "speed.csv"
    pretend(script, monkeypatch, path, {"odd": nn.Linear(1, 1), "known": hybrid()})
    with pytest.raises(SystemExit, match="odd"):
        script.main()
    assert "odd: ExportError: Expected a text tower whose plain form is known" in capsys.readouterr().out
    assert measured(path) == [("known", "image"), ("known", "text")]


@pytest.mark.parametrize("error", [RuntimeError("said torch"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_what_ends_one_tower_loses_nothing_that_was_measured(
    script, monkeypatch, tmp_path, capsys, error
) -> None:
    path = tmp_path / "speed.csv"
    pretend(script, monkeypatch, path, {"one": hybrid()})
    script.main()
    pretend(script, monkeypatch, path, {"two": hybrid(), "three": hybrid()})

    def fails(name: str, *args: object) -> dict[str, object]:
        if name == "two":
            raise error
        return {"plain": lambda: None}

    monkeypatch.setattr(script, "text_runs", fails)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        script.main()
    others = [("three", "image"), ("three", "text")] if isinstance(error, RuntimeError) else []
    assert measured(path) == [("one", "image"), ("one", "text"), ("two", "image"), *others]
    assert ("two: RuntimeError: said torch" in capsys.readouterr().out) == bool(others)
