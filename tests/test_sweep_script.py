"""``benchmarks/sweep.py``: the default sweep, and after it what trained models lose by being made cheaper."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpcvc_zoo import get_entry, list_models
from lpcvc_zoo.bench.plan import select
from lpcvc_zoo.bench.steps import weights

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sweep

    return sweep


def runs(
    script, monkeypatch: pytest.MonkeyPatch, given: list[str], status: int
) -> tuple[list[list[str]], int]:
    """The commands that were run, each ending with ``status``, and the script's own status."""
    seen: list[list[str]] = []

    def main(arguments: list[str]) -> None:
        seen.append(arguments)
        raise SystemExit(status)

    monkeypatch.setattr(script, "main", main)
    with pytest.raises(SystemExit) as ended:
        script.sweep(given)
    return seen, ended.value.code


def test_alone_it_sweeps_the_zoo_and_then_the_trade_off(script, monkeypatch) -> None:
    assert runs(script, monkeypatch, [], 0) == ([["sweep"], ["sweep", *script.TRADE_OFF]], 0)


def test_with_options_it_is_the_command_alone(script, monkeypatch) -> None:
    assert runs(script, monkeypatch, ["--quick"], 0) == ([["sweep", "--quick"]], 0)


@pytest.mark.parametrize("status", [1, 130], ids=["failed", "interrupted"])
def test_nothing_follows_a_sweep_that_did_not_end_well(script, monkeypatch, status: int) -> None:
    assert runs(script, monkeypatch, [], status) == ([["sweep"]], status)


def test_the_trade_off_is_of_weights_that_come_with_the_package(script) -> None:
    options = zip(script.TRADE_OFF[::2], script.TRADE_OFF[1::2], strict=True)
    patterns = [name for option, value in options if option == "--models" for name in value.split(",")]
    entries = [get_entry(name) for name in list_models()]
    chosen = select(entries, patterns, weights=lambda entry: weights(entry, None))
    assert len(chosen) == 4
    assert all(entry.checkpoint(tag).shipped for entry, tag in chosen)
