from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_fakes import FakeTarget, entry

from lpcvc_zoo.bench.ledger import FILE, Ledger, now
from lpcvc_zoo.bench.plan import Cell
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.errors import LedgerError
from lpcvc_zoo.retrieval.metrics import Scores


def cell(
    name: str = "alpha", dataset: str | None = None, export_id: str = "x", weights: str = "untrained"
) -> Cell:
    return Cell(entry(name, 1.0), weights, "lpcvc2026", FakeTarget(), f"{name} {export_id}", dataset=dataset)


def row(of: Cell, error: str | None = None, **more: Any) -> ResultRow:
    facts = {
        "key": of.key, "entry": of.entry.name, "family": "f", "weights": of.weights, "contract": of.contract,
        "target": "fake", "device": "nowhere", "precision": "float", "error": error, "created": now(),
    }  # fmt: skip
    return ResultRow(**(facts | more))


def scores() -> Scores:
    return Scores(
        dataset="d", images=1, texts=1, recalls=(), median_rank_image_to_text=1, median_rank_text_to_image=1
    )


@contextmanager
def raw(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / FILE)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def test_a_row_comes_back_as_it_was_added(tmp_path: Path) -> None:
    added = row(cell(), versions={"a": "1"}, scores=scores())
    with Ledger(tmp_path) as ledger:
        ledger.append(cell(), added)
    with Ledger(tmp_path) as ledger:
        assert ledger.rows() == ledger.history() == [added]


def test_rows_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(cell(), row(cell()))
    for statement in ("UPDATE results SET row = '{}'", "DELETE FROM results"):
        with pytest.raises(sqlite3.IntegrityError, match="never"), raw(tmp_path) as connection:
            connection.execute(statement)


def test_a_finished_cell_is_done_a_failed_one_is_tried_again(tmp_path: Path) -> None:
    good, bad = cell("good"), cell("bad")
    with Ledger(tmp_path) as ledger:
        ledger.append(good, row(good))
        ledger.append(bad, row(bad, error="no"))
        later = now()
        assert ledger.claim(good, since=later) == "done"
        assert ledger.claim(bad, since=later) == "mine"


def test_what_another_sweep_failed_at_meanwhile_is_not_tried_again(tmp_path: Path) -> None:
    since = now()
    with Ledger(tmp_path) as ledger:
        ledger.append(cell(), row(cell(), error="no"))
        assert ledger.claim(cell(), since=since) == "done"


def test_force_redoes_what_was_done_before_the_sweep_began_and_only_that(tmp_path: Path) -> None:
    before = now()
    with Ledger(tmp_path) as ledger:
        ledger.append(cell(), row(cell()))
        assert ledger.claim(cell(), since=before, force=True) == "done"
        assert ledger.claim(cell(), since=now(), force=True) == "mine"


def test_a_claim_keeps_others_out_until_its_row_is_added(tmp_path: Path) -> None:
    with Ledger(tmp_path) as first, Ledger(tmp_path) as second:
        assert first.claim(cell(), since=now()) == "mine"
        assert second.claim(cell(), since=now()) == "taken"
        first.append(cell(), row(cell()))
        assert second.claim(cell(), since=now()) == "done"


def test_closing_gives_claims_back(tmp_path: Path) -> None:
    with Ledger(tmp_path) as second:
        with Ledger(tmp_path) as first:
            first.claim(cell(), since=now())
        assert second.claim(cell(), since=now()) == "mine"


def _claim_and_die(folder: Path) -> None:
    Ledger(folder).claim(cell(), since=now())
    os._exit(9)


def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    with Ledger(tmp_path) as ledger:
        with raw(tmp_path) as connection:
            assert connection.execute("SELECT count(*) FROM claims").fetchone() == (1,)
        assert ledger.claim(cell(), since=now()) == "mine"


def test_a_scored_row_answers_for_an_unscored_cell_but_not_the_other_way_round(tmp_path: Path) -> None:
    plain, scored = cell(), cell(dataset="d")
    with Ledger(tmp_path) as ledger:
        ledger.append(plain, row(plain))
        assert ledger.claim(scored, since=now()) == "mine"
        ledger.append(scored, row(scored, scores=scores()))
        assert ledger.claim(plain, since=now()) == "done"
        assert ledger.row_of(plain) == ledger.history()[-1]


def test_a_report_shows_the_latest_row_of_each_point(tmp_path: Path) -> None:
    old, new, other = cell(export_id="old"), cell(export_id="new"), cell("beta")
    with Ledger(tmp_path) as ledger:
        rows = [row(old), row(other), row(new), row(new, error="broke later")]
        for of, added in zip((old, other, new, new), rows, strict=True):
            ledger.append(of, added)
        assert ledger.rows() == [rows[1], rows[3]]
        assert ledger.history() == rows


def test_a_row_made_again_replaces_one_whose_slot_had_another_form(tmp_path: Path) -> None:
    of, now_in_a_folder = cell(), replace(cell(), folder=tmp_path)
    assert of.key == now_in_a_folder.key
    assert of.slot != now_in_a_folder.slot
    with Ledger(tmp_path) as ledger:
        ledger.append(of, row(of))
        ledger.append(now_in_a_folder, row(of))
        assert ledger.rows() == ledger.history()[-1:]


def test_a_report_shows_scores_instead_of_their_absence_and_every_dataset(tmp_path: Path) -> None:
    plain, photos, coco = cell(), cell(dataset="photos"), cell(dataset="coco")
    with Ledger(tmp_path) as ledger:
        rows = [row(plain), row(photos, scores=scores()), row(coco, scores=scores())]
        for of, added in zip((plain, photos, coco), rows, strict=True):
            ledger.append(of, added)
        assert ledger.rows() == rows[1:]


def test_a_steps_outcome_is_remembered_for_the_same_source_only(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.start("key", "profile", "sha-1")
        assert ledger.value("key", "profile", "sha-1") is None
        ledger.finish("key", "profile", "{}", reference="job-7")
        assert ledger.value("key", "profile", "sha-1") == "{}"
        assert ledger.value("key", "profile", "sha-2") is None
        assert ledger.value("key", "profile", "sha-1", since=now()) is None
    with raw(tmp_path) as connection:
        assert connection.execute("SELECT reference, state, pid FROM steps").fetchone() == (
            "job-7", "done", os.getpid(),
        )  # fmt: skip


def test_a_failed_step_is_not_an_outcome(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.start("key", "profile", "sha")
        ledger.fail("key", "profile", "TargetError: no")
        assert ledger.value("key", "profile", "sha") is None


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 100)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(LedgerError, match=r"not a ledger.*Move it away"):
        Ledger(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(LedgerError, match="something else"):
        Ledger(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_damaged_ledger_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for number in range(200):
            ledger.append(cell(f"m{number}"), row(cell(f"m{number}")))
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 20] = os.urandom(4096 * 15)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"damaged|malformed"), Ledger(tmp_path) as ledger:
        ledger.rows()


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with raw(tmp_path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"newer lpcvc_zoo.*Update"):
        Ledger(tmp_path)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        with raw(tmp_path) as connection:
            connection.execute(
                "INSERT INTO results (key, cell, slot, dataset, created, failed, row) "
                "VALUES ('k', 'c', 's', '', 't', 0, '{}')"
            )
        with pytest.raises(LedgerError, match="row 1 is not one"):
            ledger.rows()


def test_a_full_disk_loses_no_row_and_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(cell(), row(cell()))
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"disk is full.*Make room"):
            ledger.append(cell("big"), row(cell("big"), versions={"x": "y" * 50_000}))
        assert [found.entry for found in ledger.rows()] == ["alpha"]
    with Ledger(tmp_path) as ledger:
        ledger.append(cell("big"), row(cell("big"), versions={"x": "y" * 50_000}))
        assert [found.entry for found in ledger.rows()] == ["alpha", "big"]


@contextmanager
def write_protected(folder: Path) -> Iterator[None]:
    """Nobody may write into ``folder``, and anybody read it."""
    for path in folder.glob("*"):
        path.chmod(path.stat().st_mode | 0o055)
    folder.chmod(0o555)
    for parent in folder.parents:
        if os.access(parent, os.W_OK) and parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        yield
    finally:
        os.seteuid(was)
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    with write_protected(locked):
        with pytest.raises(LedgerError, match="can't be"):
            Ledger(locked)
        with pytest.raises(LedgerError, match="can't be made"):
            Ledger(locked / "results")


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_rows_are_read_where_nothing_can_be_written(tmp_path: Path, left: str) -> None:
    results = tmp_path / "results"
    sweep = multiprocessing.get_context("spawn").Process(target=_append_and_stop, args=(results, left))
    sweep.start()
    sweep.join()
    files = sorted(results.iterdir())
    assert (results / "ledger.sqlite-wal").exists() == (left == "killed")  # where its row still is
    with write_protected(results), Ledger(results, read_only=True) as ledger:
        assert [found.entry for found in ledger.rows()] == ["alpha"]
    assert sorted(results.iterdir()) == files


def _append_and_stop(folder: Path, left: str) -> None:
    ledger = Ledger(folder)
    ledger.append(cell("alpha"), row(cell("alpha")))
    if left == "killed":
        os._exit(9)
    ledger.close()


def test_reading_leaves_the_folder_as_it_was_and_makes_no_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(cell("alpha"), row(cell("alpha")))
    files = sorted(tmp_path.rglob("*"))
    with Ledger(tmp_path, read_only=True) as ledger:
        assert len(ledger.rows()) == 1
    assert sorted(tmp_path.rglob("*")) == files
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


def test_an_output_folder_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="can't be made"):
        Ledger(tmp_path / "file" / "results")


def _claim_all(folder: Path, mine: Any) -> None:
    with Ledger(folder) as ledger:
        since = now()
        for number in range(30):
            of = cell(f"m{number}")
            if ledger.claim(of, since=since) == "mine":
                ledger.append(of, row(of))
                mine.put(number)


def test_many_processes_that_open_and_claim_at_once_never_share_a_cell(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    mine = spawn.Queue()
    processes = [spawn.Process(target=_claim_all, args=(tmp_path, mine)) for _ in range(4)]
    for process in processes:
        process.start()
    done = sorted(mine.get(timeout=20) for _ in range(30))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert done == list(range(30))
    with Ledger(tmp_path) as ledger:
        assert len(ledger.history()) == 30
