"""Sweeps on AI Hub: all jobs under way at once, nothing submitted twice, nothing lost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aihub_sweep
import pytest
import sweep_fakes
import tiny
from aihub_server import AIHubServer, Fault
from aihub_sweep import ENTRIES, comparable
from rich.console import Console

from lpcvc_zoo.bench.ledger import Ledger
from lpcvc_zoo.bench.outcome import Outcome
from lpcvc_zoo.bench.sweep import run
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.files import cache_dir


@pytest.fixture(autouse=True)
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sweep_fakes.FOLDER, str(tmp_path / "exports"))
    monkeypatch.setattr("lpcvc_zoo.bench.sweep.Workers", aihub_sweep.Inline)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tiny.two_photos(tmp_path / "photos")


def sweep(
    out: Path, dataset: Path, entries: Sequence[Entry] = ENTRIES, targets: Any = None, **more: Any
) -> tuple[Outcome, str]:
    console = Console(file=io.StringIO(), width=300)
    outcome = run(
        aihub_sweep.options(out, dataset, **more),
        tools=aihub_sweep.TOOLS, entries=entries, targets=targets or [aihub_sweep.target()], console=console,
    )  # fmt: skip
    return outcome, console.file.getvalue()  # type: ignore[attr-defined]


def test_a_row_says_what_the_device_did(hub: AIHubServer, tmp_path: Path, dataset: Path) -> None:
    hub.state.slow = 2
    outcome, text = sweep(tmp_path / "out", dataset)
    assert outcome.failed == 0, text
    row = outcome.rows[0]
    assert row.device == "XR2 Gen 2 (Proxy)"
    assert row.scores is not None
    assert (row.scores.images, row.scores.texts) == (2, 12)
    for tower, profile in (("image", row.image), ("text", row.text)):
        parity = getattr(row, f"{tower}_device_parity")
        assert parity.min_cosine == pytest.approx(1.0)
        assert parity.samples == {"image": 2, "text": 12}[tower]
        assert profile is not None
        assert profile.layers_by_unit
        assert profile.peak_memory_range_bytes
    assert [(job.kind, job.tower) for job in row.jobs] == [
        (kind, tower) for tower in ("image", "text") for kind in ("compile", "profile", "inference")
    ]
    assert {job.id for job in row.jobs} <= {job.id for job in hub.jobs}
    assert all(job.url == f"{hub.url}/jobs/{job.id}/" for job in row.jobs)
    assert row.preprocess_ms is not None
    assert len(hub.jobs) == 6 * len(ENTRIES) + 2
    assert hub.state.duplicates() == []


def test_jobs_of_several_models_are_under_way_at_once(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    asked: list[int] = []
    hub.choose = lambda line: asked.append(len(hub.jobs)) if "GET /api/v1/jobs/" in line else None  # type: ignore[func-returns-value]
    sweep(tmp_path / "out", dataset, in_flight=3, jobs=3)
    results = [line for line in hub.seen if line.endswith("/result/")]
    submitted = [line for line in hub.seen if line.startswith("POST /api/v1/jobs/")]
    first_result, last_submission = (
        hub.seen.index(results[0]),
        len(hub.seen) - 1 - hub.seen[::-1].index(submitted[-1]),
    )
    assert last_submission < first_result


def test_one_model_in_flight_is_gathered_before_the_next(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    sweep(tmp_path / "out", dataset, in_flight=1)
    lines = [line for line in hub.seen if line.endswith("/result/") or line.startswith("POST /api/v1/jobs/")]
    assert lines[-1].endswith("/result/")
    assert lines[8].endswith("/result/")


def test_run_again_it_submits_nothing_even_without_its_memory(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    first, _ = sweep(tmp_path / "out", dataset)
    jobs = len(hub.jobs)
    sweep(tmp_path / "out", dataset)
    sweep(tmp_path / "out", dataset, force=True)
    sweep(tmp_path / "elsewhere", dataset)
    assert len(hub.jobs) == jobs
    aihub = cache_dir() / "aihub"
    aihub.rename(aihub.with_name("lost"))
    hub.seen.clear()
    again, _ = sweep(tmp_path / "out", dataset)
    assert len(hub.jobs) == jobs
    assert [comparable(row) for row in again.rows] == [comparable(row) for row in first.rows]


def test_another_series_measures_anew_in_the_same_place(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    sweep(tmp_path / "out", dataset, ENTRIES[:1])
    jobs = len(hub.jobs)
    sweep(tmp_path / "out", dataset, ENTRIES[:1], [aihub_sweep.target(series="2")])
    assert len(hub.jobs) == 2 * jobs
    with Ledger(tmp_path / "out") as ledger:
        assert len(ledger.rows()) == 1
        assert len(ledger.history()) == 2


def test_a_model_that_fails_is_a_row_and_the_sweep_goes_on(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    sweep(tmp_path / "warm-up", dataset, ENTRIES[:1])
    hub.fail_jobs("compile", "Op Foo is not supported.", 13003)
    outcome, _ = sweep(tmp_path / "out", dataset)
    failed = [row for row in outcome.rows if row.error]
    assert len(failed) == 1
    assert failed[0].error is not None
    for part in ("Op Foo is not supported.", "--target_runtime qnn_dlc", hub.url):
        assert part in failed[0].error
    assert failed[0].jobs
    again, _ = sweep(tmp_path / "out", dataset)
    assert [row.error for row in again.rows] == [row.error for row in outcome.rows]
    assert hub.state.duplicates() == []


def test_what_the_device_broke_has_no_recall_but_its_latency(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    hub.api.output_hook = lambda outputs: {
        name: [array * float("nan") for array in arrays] for name, arrays in outputs.items()
    }
    outcome, _ = sweep(tmp_path / "out", dataset, ENTRIES[:1])
    row = outcome.rows[0]
    assert row.error is not None
    assert "NaN or infinite" in row.error
    assert row.scores is None
    assert row.total_ms is not None


@pytest.mark.parametrize("kind", ["compile", "profile", "inference"])
def test_devices_that_time_out_are_asked_again(
    hub: AIHubServer, tmp_path: Path, dataset: Path, kind: str
) -> None:
    expected, _ = sweep(tmp_path / "undisturbed", dataset, ENTRIES[:1], [aihub_sweep.target(series="0")])
    hub.fail_jobs(kind, "The device timed out.", 12000, times=2)
    outcome, text = sweep(tmp_path / "out", dataset, ENTRIES[:1])
    assert outcome.failed == 0, text
    unkeyed = [[comparable(row) | {"key": None} for row in rows] for rows in (outcome.rows, expected.rows)]
    assert unkeyed[0] == unkeyed[1]


def test_devices_and_precisions_are_a_grid(hub: AIHubServer, tmp_path: Path, dataset: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    outcome = run(
        aihub_sweep.options(
            tmp_path / "out", dataset, targets=("aihub",), devices=("all-phones", "XR2 Gen 2 (Proxy)"),
            precisions=("float", "w8a16"), calibration=str(tiny.two_photos(tmp_path / "calibration")),
        ),
        tools=aihub_sweep.TOOLS, entries=ENTRIES[:1], console=console,
    )  # fmt: skip
    assert outcome.failed == 0, console.file.getvalue()  # type: ignore[attr-defined]
    assert {(row.device, row.precision) for row in outcome.rows} == {
        (device, precision)
        for device in ("Samsung Galaxy S24", "Samsung Galaxy S23", "XR2 Gen 2 (Proxy)")
        for precision in ("float", "w8a16")
    }
    quantised = [row for row in outcome.rows if row.precision == "w8a16"]
    assert all(row.jobs[0].kind == "quantize" for row in quantised)
    parity = quantised[0].text_device_parity
    assert parity is not None
    assert parity.min_cosine < 1 - 1e-6
    quantize = [job for job in hub.jobs if job.kind == "quantize"]
    assert len(quantize) == 3  # both towers and the in-graph preprocessing, once for all devices


def test_a_service_that_stays_away_fails_rows_and_loses_nothing(
    hub: AIHubServer, tmp_path: Path, dataset: Path
) -> None:
    target = aihub_sweep.target()
    hub.faults.append(Fault("GET /api/v1/jobs/", status=503, times=10**6))
    outcome, _ = sweep(tmp_path / "out", dataset, targets=[target])
    assert outcome.failed == len(ENTRIES)
    assert all("Nothing that was submitted is lost" in (row.error or "") for row in outcome.rows)
    hub.faults.clear()
    outcome, _ = sweep(tmp_path / "out", dataset)
    assert outcome.failed == 0
    assert hub.state.duplicates() == []
