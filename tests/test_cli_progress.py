"""The bar that long commands show: what is done, of how many, and the time left; on a terminal only."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lpcvc_zoo.cli import shared


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_counts_and_tells_the_time_left_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, screen = [0.0], io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100, get_time=lambda: clock[0])
    monkeypatch.setattr(shared, "Console", lambda stderr: console)
    with shared.counting("scoring it") as progress:
        for done in (1, 2, 3):
            clock[0] += 10
            progress(done, 9)
    if terminal:
        assert "scoring it" in screen.getvalue()
        assert "3/9" in screen.getvalue()
        assert "0:01:00" in screen.getvalue()  # 6 more, at 10 s each
    else:
        assert not screen.getvalue().strip()
