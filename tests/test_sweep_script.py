"""``benchmarks/sweep.py``: the default sweep, and after it what trained models lose by being made cheaper."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpcvc_zoo import get_entry, list_models, load_dataset
from lpcvc_zoo.bench.options import SweepOptions
from lpcvc_zoo.bench.plan import select
from lpcvc_zoo.bench.steps import weights
from lpcvc_zoo.cli import main
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.preprocess import tokenize
from lpcvc_zoo.retrieval.photos import scored_on

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
    try:
        script.sweep(given)
    except SystemExit as ended:
        return seen, ended.code
    return seen, 0


def test_alone_it_sweeps_the_zoo_and_then_what_making_it_cheaper_costs(script, monkeypatch) -> None:
    followed = [["sweep"], ["sweep", *script.TRADE_OFF], ["sweep", *script.DEPTHS]]
    assert runs(script, monkeypatch, [], 0) == (followed, 0)


def test_with_options_it_is_the_command_alone(script, monkeypatch) -> None:
    assert runs(script, monkeypatch, ["--quick"], 0) == ([["sweep", "--quick"]], 0)


@pytest.mark.parametrize("status", [1, 130], ids=["failed", "interrupted"])
def test_nothing_follows_a_sweep_that_did_not_end_well(script, monkeypatch, status: int) -> None:
    assert runs(script, monkeypatch, [], status) == ([["sweep"]], status)


def parsed(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> SweepOptions:
    """What the command makes of its options."""
    given: list[SweepOptions] = []

    def run(options: SweepOptions, console: object) -> None:
        given.append(options)
        raise SystemExit(0)

    monkeypatch.setattr("lpcvc_zoo.bench.sweep.run", run)
    with pytest.raises(SystemExit):
        main(["sweep", *options])
    return given[0]


def chosen(options: SweepOptions) -> list[tuple[Entry, str]]:
    entries = [get_entry(name) for name in list_models()]
    return select(entries, options.models, weights=lambda entry: weights(entry, None))


def test_the_trade_off_is_of_weights_that_come_with_the_package(script, monkeypatch) -> None:
    models = chosen(parsed(script.TRADE_OFF, monkeypatch))
    assert len(models) == 4
    assert all(entry.checkpoint(tag).shipped for entry, tag in models)


def test_nothing_is_lost_at_the_longest_text_of_the_trade_off(script, monkeypatch) -> None:
    options = parsed(script.TRADE_OFF, monkeypatch)
    texts = load_dataset(scored_on(options.dataset, options.precisions)).texts
    lengths = tokenize(texts, 77)[1].sum(axis=1)
    assert lengths.max() == options.text_lengths[-1] == max(options.text_lengths)


def test_rows_of_fewer_layers_make_one_curve_with_the_trade_offs(script, monkeypatch) -> None:
    """The same folder, photos and length; every depth below the whole one, which the trade-off has."""
    trade, depths = (parsed(options, monkeypatch) for options in (script.TRADE_OFF, script.DEPTHS))
    assert depths.out == trade.out
    assert scored_on(depths.dataset, depths.precisions) == scored_on(trade.dataset, trade.precisions)
    assert set(depths.text_lengths) <= set(trade.text_lengths)
    assert set(depths.precisions) <= set(trade.precisions)
    ((entry, tag),) = chosen(depths)
    assert (entry, tag) in chosen(trade)
    assert depths.text_depths == tuple(range(1, entry.text_layers))
