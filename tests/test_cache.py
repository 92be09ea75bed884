"""What the cache of exports takes for the same export, and what two processes leave there."""

from __future__ import annotations

from pathlib import Path

from lpcvc_zoo.exporting import cache
from lpcvc_zoo.exporting.lint import graph

SMALL = "efficientvit_m0_text_s"


def test_a_size_that_no_tower_has_is_not_the_entrys_own() -> None:
    assert cache.export_key(SMALL, image_size=0) != cache.export_key(SMALL)


def test_editing_what_folding_reads_a_graph_with_makes_exports_anew(monkeypatch) -> None:
    digest = cache._own_code.__wrapped__
    before, read, edited = digest(), Path.read_bytes, Path(graph.__file__)
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path == edited else b""))
    assert digest() != before


def test_an_export_that_another_process_finished_while_the_model_was_built_stays(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path))
    folder = tmp_path / "exports" / cache.export_key(SMALL)

    def built_slowly(name: str, **options: object) -> None:
        folder.mkdir()
        (folder / "theirs").touch()

    monkeypatch.setattr(cache.registry, "build", built_slowly)
    monkeypatch.setattr(cache, "export", lambda model, folder, **options: (folder / "ours").touch())
    monkeypatch.setattr(cache, "load_artifact", lambda folder: folder)
    assert [path.name for path in cache.cached_export(SMALL).iterdir()] == ["theirs"]
