"""Files and folders that appear whole, whoever else writes them."""

from __future__ import annotations

from pathlib import Path

from lpcvc_zoo.files import CACHE_VARIABLE, cache_dir, folder_written_whole


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_relative_cache_is_found_from_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "here")
    monkeypatch.chdir(tmp_path)
    assert cache_dir() == tmp_path / "here"


def test_a_folder_that_another_process_finished_meanwhile_stays_with_what_it_was_used_for(tmp_path) -> None:
    for earlier in (None, "damaged"):
        folder = tmp_path / str(earlier)
        if earlier:
            folder.mkdir()
            (folder / "tower").write_text(earlier)
        with folder_written_whole(folder) as slow:
            (slow / "tower").write_text("slow")
            with folder_written_whole(folder) as fast:
                (fast / "tower").write_text("fast")
            (folder / "samples").mkdir()
            (folder / "samples" / "one").write_text("dear")
        assert contents(folder) == {"tower": "fast", "one": "dear"}
        assert {path.name for path in tmp_path.iterdir()} <= {"None", "damaged"}


def test_what_lay_there_before_is_replaced(tmp_path) -> None:
    folder = tmp_path / "made"
    for text in ("damaged", "whole"):
        with folder_written_whole(folder) as temporary:
            (temporary / text).write_text(text)
    assert contents(folder) == {"whole": "whole"}
