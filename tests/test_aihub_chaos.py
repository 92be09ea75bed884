"""Sweeps on AI Hub that are killed anywhere, while the service fails in every way it has.

Over many random cases: no job is submitted twice, none is forgotten, and the rows are those of an undisturbed
sweep. A kill is an exception at a random request, record or ledger write, before or after it took effect; a
few real SIGKILLs show that the process's end is no different.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aihub_sweep
import pytest
import sweep_fakes
import tiny
from aihub_server import AIHubServer, Fault
from aihub_sweep import ENTRIES, comparable
from qai_hub.util.session import SessionWithRetryAndTimeout
from rich.console import Console

from lpcvc_zoo.bench.ledger import Ledger
from lpcvc_zoo.bench.outcome import Outcome
from lpcvc_zoo.bench.sweep import run
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.store import Store

HERE = Path(__file__).parent
CASES, PARTS = 200, 4
BOUNDARIES = 150  # of a sweep over one model, about


class Killed(BaseException):
    """Not an Exception: nothing may catch it and go on."""


class Reaper:
    """Kills at the n-th boundary from now; nothing leaves or is written after that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        boundaries: list[tuple[Any, str]] = [(SessionWithRetryAndTimeout, "request"), (Store, "put")]
        boundaries += [(Ledger, name) for name in ("claim", "start", "refer", "finish", "fail", "append")]
        for owner, name in boundaries:
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))

    def kill_after(self, boundaries: int | None) -> None:
        self._left = boundaries

    def _pass(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            result = function(*args, **kwargs)
            self._pass()
            return result

        return guarded


def random_faults(random_: random.Random, rate: float) -> Callable[[str], Fault | None]:
    def choose(line: str) -> Fault | None:
        if random_.random() >= rate:
            return None
        kinds: list[dict[str, Any]] = [
            {},
            {"after": True},
            {"status": random_.choice((429, 500, 502, 503, 504)), "after": random_.random() < 0.5},
        ]
        if line.startswith(("POST /api/v1/jobs/", "PATCH /api/v1/datasets")) or "multipart" in line:
            kinds.append({"wrong_id": line.startswith(("POST", "PATCH"))})
        if random_.random() < 0.1:
            kinds = [{"status": random_.choice((400, 401))}]
        return Fault(line, **random_.choice(kinds))

    return choose


def sweep(out: Path, dataset: Path, models: int) -> Outcome:
    return run(
        aihub_sweep.options(out, dataset, in_flight=2, jobs=2),
        tools=aihub_sweep.TOOLS, entries=ENTRIES[:models], targets=[aihub_sweep.target()],
        console=Console(file=io.StringIO()),
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder for exports, which all cases share, and a dataset."""
    monkeypatch.setenv(sweep_fakes.FOLDER, str(tmp_path / "exports"))
    monkeypatch.setattr("lpcvc_zoo.bench.sweep.Workers", aihub_sweep.Inline)
    return tmp_path, tiny.two_photos(tmp_path / "photos")


def rows_of(out: Path) -> list[dict[str, Any]]:
    with Ledger(out) as ledger:
        return [comparable(row) for row in sorted(ledger.rows(), key=lambda row: row.entry)]


def is_sound(hub: AIHubServer, out: Path) -> None:
    """No job was submitted twice, none forgotten, and every row names the jobs that gave it."""
    assert hub.state.duplicates() == []
    assert hub.state.forgotten() == []
    with Ledger(out) as ledger:
        named = {job.id for row in ledger.rows() for job in row.jobs}
    good = {job.id for job in hub.jobs if job.state == "DONE"}
    assert named <= good
    assert len(good - named) == 2  # the in-graph preprocessing by itself, compiled and measured


@pytest.mark.parametrize("part", range(PARTS))
def test_no_kill_and_no_fault_doubles_or_loses_a_job(
    hub: AIHubServer, place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    folder, dataset = place
    expected: dict[int, list[dict[str, Any]]] = {}
    for models in (1, 2):
        monkeypatch.setenv("LPCVC_ZOO_CACHE", str(folder / f"cache {models} models"))
        hub.reset()
        assert sweep(folder / f"{models} models", dataset, models).failed == 0
        expected[models] = rows_of(folder / f"{models} models")
    reaper = Reaper(monkeypatch)
    kills = 0
    for seed in range(part, CASES, PARTS):
        random_ = random.Random(seed)
        out, models = folder / f"case {seed}", random_.choice((1, 1, 1, 2))
        monkeypatch.setenv("LPCVC_ZOO_CACHE", str(folder / f"cache {seed}"))
        hub.reset()
        hub.state.slow = random_.choice((0, 0, 2))
        hub.choose = random_faults(random_, random_.choice((0.0, 0.02, 0.06)))
        for kind in ("compile", "profile", "inference"):
            if random_.random() < 0.2:
                hub.fail_jobs(kind, "The device timed out.", random_.choice((12000, 21000, 2001)))
        wanted = random_.choice((0, 1, 1, 2, 3))
        for attempt in range(30):
            reaper.kill_after(random_.randrange(BOUNDARIES * models) if attempt < wanted else None)
            try:
                if sweep(out, dataset, models).failed == 0:
                    break
            except Killed:
                kills += 1
                for item in hub.state.datasets.values():
                    if item.pb.name.startswith("lpcvc-zoo-data") and random_.random() < 0.2:
                        hub.state.expire(item.id)
            except TargetError:  # the devices could not be listed; the user tries again
                continue
        else:
            raise AssertionError(f"seed {seed} does not end")
        reaper.kill_after(None)
        hub.choose = None
        assert rows_of(out) == expected[models], f"seed {seed}"
        is_sound(hub, out)
    assert kills >= CASES // PARTS // 2


@pytest.fixture
def killed_sweep(hub: AIHubServer, place: tuple[Path, Path]) -> Iterator[Callable[[str, int], int]]:
    """Start a sweep, kill its process at the n-th request whose line holds a word; its exit status."""
    folder, dataset = place
    children: list[subprocess.Popen[bytes]] = []

    def go(word: str, count: int, *more: str) -> int:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
        command = [sys.executable, str(HERE / "aihub_sweep.py"), str(folder / "out"), str(dataset), *more]
        left = count

        def choose(line: str) -> Fault | None:
            nonlocal left
            left -= word in line
            if left == 0 and children[-1].poll() is None:
                children[-1].send_signal(signal.SIGKILL)
            return None

        hub.choose = choose
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        status = children[-1].wait(timeout=300)
        hub.choose = None
        return status

    yield go
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.slow
def test_a_killed_process_is_no_different(
    hub: AIHubServer, place: tuple[Path, Path], killed_sweep: Callable[..., int]
) -> None:
    folder, _ = place
    hub.state.slow = 2
    for word, count in (("POST /api/v1/jobs/", 3), ("POST /api/v1/jobs/", 6), ("/result/", 2)):
        assert killed_sweep(word, count) == -signal.SIGKILL
    assert killed_sweep("never", 1) == 0
    rows = rows_of(folder / "out")
    assert [row["error"] for row in rows] == [None] * len(ENTRIES)
    is_sound(hub, folder / "out")


@pytest.mark.slow
def test_all_built_in_entries_killed_ten_times_give_the_undisturbed_table(
    hub: AIHubServer, place: tuple[Path, Path], killed_sweep: Callable[..., int]
) -> None:
    """Every entry of the registry, its towers replaced by some of a few nodes."""
    folder, _ = place
    assert killed_sweep("never", 1, "all") == 0
    undisturbed = rows_of(folder / "out")
    assert len(undisturbed) > 20
    (folder / "out").rename(folder / "undisturbed")
    (folder / "cache").rename(folder / "undisturbed cache")
    hub.reset()
    moments = [("POST /api/v1/jobs/", 7), ("/result/", 5), ("PUT /models/", 3), ("GET /api/v1/jobs/", 12)]
    for kill in range(10):
        assert killed_sweep(*moments[kill % len(moments)], "all") == -signal.SIGKILL
    assert killed_sweep("never", 1, "all") == 0
    assert rows_of(folder / "out") == undisturbed
    assert hub.state.duplicates() == []
    assert hub.state.forgotten() == []
