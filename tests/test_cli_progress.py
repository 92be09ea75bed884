"""What long commands show: a bar with what is done, of how many, and the time left; none of it in JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import foreign
import pytest
from rich.console import Console
from tiny import tiny_model, two_photos

from lpcvc_zoo import load_artifact, registry
from lpcvc_zoo.cli import main, one, shared
from lpcvc_zoo.exporting import cache
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


ODD = "odd[/b]"  # to rich, with its slash, the end of what never began


@pytest.mark.usefixtures("cache")
def test_a_folder_whose_name_looks_like_markup_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(one.registry, "build", lambda *_, **__: tiny_model("lpcvc2026_sample"))
    monkeypatch.setattr(cache, "cached_export", lambda *_, **__: load_artifact(ODD))
    foreign.image_tower(Path("i.onnx"))
    foreign.text_tower(Path("t.onnx"))
    photos, name = two_photos(tmp_path / "two[i]"), registry.list_models()[0]
    adopting = ["adopt", "i.onnx", "t.onnx", "--contract", "lpcvc2026_sample", "--out", f"{ODD}/pair"]
    scoring = ["evaluate", f"{ODD}/pair", "--dataset", str(photos)]
    quantising = ["quantize", name, "--samples", "2", "--out", f"{ODD}/w8a16"]
    commands = (["export", name, "--out", ODD], adopting, ["profile", f"{ODD}/pair"], scoring, quantising)
    for arguments in commands:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        assert ODD in said.out
