"""The benchmark that holds our exports against plain ones on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import export_speed

    return export_speed


def test_however_slow_a_variant_is_its_median_is_of_three_runs_in_each_round(script) -> None:
    now, seen = [0.0], []

    def run() -> None:
        seen.append(now[0])
        now[0] += len(seen)  # seconds, more each time

    found = script.measure({"plain": run}, 2, lambda: now[0])
    assert found == {"plain": [5000.0, 8000.0]}  # runs 4 to 6 and 7 to 9, after three that warm up
