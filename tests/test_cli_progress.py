"""What long commands show: a bar with what is done, of how many, and the time left; none of it in JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import foreign
import pytest
from rich.console import Console

from lpcvc_zoo.cli import main, shared
from lpcvc_zoo.exporting.adopt import adopt


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


@pytest.mark.usefixtures("cache")
def test_json_is_json_where_colours_are_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, text = foreign.image_tower(tmp_path / "i.onnx"), foreign.text_tower(tmp_path / "t.onnx")
    adopt(image, text, tmp_path / "pair", contract="lpcvc2026_sample")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as many CI systems set it; a terminal is the same to rich
    with pytest.raises(SystemExit):
        main(["profile", str(tmp_path / "pair"), "--json"])
    said = capsys.readouterr()
    assert set(json.loads(said.out)) == {"image", "text"}
    assert "measuring" in said.err
