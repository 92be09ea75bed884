"""The main job: every chosen model exported, measured, scored where it should be, and reported.

Exports run beside each other in worker processes; the workers are idle while a latency is measured, and a
machine-wide lock keeps other sweeps and exports of ours still meanwhile.
"""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lpcvc_zoo.bench.artifacts import artifact_cells
from lpcvc_zoo.bench.ledger import Ledger, now
from lpcvc_zoo.bench.locks import busy_machine, quiet_machine
from lpcvc_zoo.bench.options import SweepOptions as SweepOptions
from lpcvc_zoo.bench.options import make_targets, refuse_idle
from lpcvc_zoo.bench.outcome import Outcome, conclude, warn_of_problems
from lpcvc_zoo.bench.plan import Cell, plan, select
from lpcvc_zoo.bench.progress import Progress
from lpcvc_zoo.bench.remote import RemoteWork
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.steps import CellWork, Tools, describe, measure_preprocessing
from lpcvc_zoo.bench.workers import Done, Job, Workers
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import LedgerError, TargetError
from lpcvc_zoo.exporting.artifact import load_artifact
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.retrieval.calibration import check_apart
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets.base import AsyncTarget, Target
from lpcvc_zoo.targets.onnxruntime import usable_cpus
from lpcvc_zoo.targets.references import JobFailedError

MOST_JOBS = 4  # each export may take a few GB
POLL_S = 0.5


@dataclass(frozen=True)
class _Made:
    """What the workers made for a wave: exports in the cells' order, and torch's embeddings by the id of
    cells that are compared with them.
    """

    exports: list[Done]
    embeddings: dict[str, Done]


@dataclass(frozen=True)
class _Flight:
    """A cell whose jobs are under way."""

    work: RemoteWork
    export: Done
    embeddings: Done | None


def run(
    options: SweepOptions,
    *,
    tools: Tools | None = None,
    entries: Sequence[Entry] | None = None,
    targets: Sequence[Target] | None = None,
    console: Console | None = None,
) -> Outcome:
    """Sweep, and report what is done after every model.

    What the ledger in ``options.out`` has is not done again. A model that fails becomes a row with its
    error. Ctrl-C ends the sweep with what is done; the same call goes on. ``entries``, ``targets`` and
    ``tools`` stand in for the registry, the named targets and the other rooms.

    Raises UnknownNameError for names nobody registered, ZooError for options that change nothing about
    artifacts, DatasetError for a dataset that can't be read or is too small for the contract's metric, and
    LedgerError where the output folder or its ledger can't be used; all before any work.
    """
    console = console or Console()
    tools = tools or Tools()
    options, cells, dataset, fingerprint = _planned(options, tools, entries, targets)
    scored_on = {
        contract: {
            "dataset": dataset.name,
            "dataset_fingerprint": fingerprint,
            "chance": tools.chance(dataset, contract),
        }
        for contract in {cell.contract for cell in cells}
    }
    warn_of_problems(console, dataset)
    with Ledger(options.out) as ledger:
        outcome = _Sweep(options, tools, cells, dataset, scored_on, ledger, Progress(console, cells)).go()
    conclude(console, options, outcome, len(cells))
    return outcome


def _planned(
    options: SweepOptions, tools: Tools, entries: Sequence[Entry] | None, targets: Sequence[Target] | None
) -> tuple[SweepOptions, list[Cell], RetrievalDataset, str]:
    """The options with the name of the dataset to score on, the cells, that dataset, and its fingerprint."""
    if entries is None:
        from lpcvc_zoo.registry import get_entry, list_models

        entries = [get_entry(name) for name in list_models()]
    if targets is None:
        targets = make_targets(options, tools)
    artifacts = [load_artifact(folder) for folder in options.artifacts]
    manifests = [artifact.manifest for artifact in artifacts]
    models = []
    if artifacts and not options.models:
        refuse_idle(options, manifests, targets)
    else:
        models = select(
            entries,
            options.models,
            quick=options.quick,
            weights=lambda entry: tools.weights(entry, options.pretrained),
        )
    precisions = [*options.precisions, *(manifest.precision for manifest in manifests)]
    options = options.model_copy(update={"dataset": photos.scored_on(options.dataset, precisions)})
    dataset = tools.load_dataset(options.dataset)  # its chance is stated also where nothing is scored
    if any(canonical(precision) != FLOAT for precision in options.precisions):
        check_apart(tools.load_dataset(options.calibration), dataset)
    fingerprint = tools.fingerprint(dataset)
    cells = plan(
        models,
        targets,
        tools.export_id,
        contracts=options.contracts,
        precisions=options.precisions,
        rewrites=options.rewrites,
        calibration=options.calibration,
        text_lengths=options.text_lengths,
        text_depths=options.text_depths,
        dataset=fingerprint,
        evaluate_untrained=options.evaluate_untrained,
    )
    cells += artifact_cells(
        artifacts,
        targets,
        dataset=fingerprint,
        evaluate_untrained=options.evaluate_untrained,
    )
    return options, cells, dataset, fingerprint


class _Sweep:
    def __init__(
        self,
        options: SweepOptions,
        tools: Tools,
        cells: list[Cell],
        dataset: RetrievalDataset,
        scored_on: dict[str, dict[str, Any]],
        ledger: Ledger,
        progress: Progress,
    ) -> None:
        self._options, self._tools, self._cells, self._dataset = options, tools, cells, dataset
        self._scored_on, self._ledger, self._progress = scored_on, ledger, progress
        self._started = now()
        self._since = self._started if options.force else ""
        self._preprocessing: dict[str, Done] = {}  # its export, by its key
        self._preprocess_ms: dict[str, float | None] = {}  # where that is settled for all cells of a key
        self._flying: deque[_Flight] = deque()
        cpus = usable_cpus()
        self._jobs = options.jobs or min(cpus, MOST_JOBS)
        self._workers = Workers(self._jobs, max(1, cpus // self._jobs))
        self._outcome = Outcome()

    def go(self) -> Outcome:
        outcome = self._outcome
        with self._workers, self._progress:
            try:
                self._waves()
                if outcome.added == 0:  # files of an earlier report may have gone
                    self._report()
            except KeyboardInterrupt:
                outcome.interrupted = True
                with suppress(ValueError):  # not in the main thread
                    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C kills
        outcome.rows = [row for cell in self._cells if (row := self._ledger.row_of(cell)) is not None]
        return outcome

    def _waves(self) -> None:
        """Claim a few cells, export them side by side, then measure each alone; until none is left."""
        pending = list(self._cells)
        size = self._jobs  # small at first, so that the first row comes soon
        told = False
        while pending or self._flying:
            wave, pending = self._claim(pending, size)
            if wave:
                self._wave(wave)
                size = 2 * self._jobs  # larger waves even out exports of different length
            elif self._flying:
                self._land()
            elif pending:
                if not told:
                    self._progress.note(
                        f"Another sweep is at the last {len(pending)} of these; waiting for it."
                    )
                    told = True
                self._progress.doing("waiting for another sweep")
                time.sleep(POLL_S)

    def _claim(self, pending: list[Cell], size: int) -> tuple[list[Cell], list[Cell]]:
        """The next cells to do here, and those that are left: not looked at yet, or with another sweep."""
        wave: list[Cell] = []
        later: list[Cell] = []
        for place, cell in enumerate(pending):
            if len(wave) == size:
                return wave, later + pending[place:]
            claim = self._ledger.claim(cell, since=self._started, force=self._options.force)
            if claim == "mine":
                wave.append(cell)
            elif claim == "taken":
                later.append(cell)
            else:
                self._progress.skipped(cell)
        return wave, later

    def _wave(self, wave: list[Cell]) -> None:
        made = self._export(wave)
        for cell, export in zip(wave, made.exports, strict=True):
            if isinstance(cell.target, AsyncTarget):
                self._launch(cell, export, made)
            else:
                self._finish(cell, self._do(cell, export))

    def _finish(self, cell: Cell, row: ResultRow) -> None:
        self._ledger.append(cell, row)
        self._outcome.added += 1
        self._progress.finished(cell, row)
        self._report()

    def _launch(self, cell: Cell, export: Done, made: _Made) -> None:
        """Submit a cell's jobs; with too many under way, wait for those of the longest waiting cell."""
        work = RemoteWork(cell, self._ledger, self._since)
        work.known |= self._scored_on[cell.contract]
        flight = _Flight(work, export, made.embeddings.get(cell.id))
        if export.error is not None:
            self._finish(cell, work.row(export.error))
            return
        self._progress.doing(f"{cell.model}: submitting")
        try:
            preprocessing = self._unmeasured(cell)
            if preprocessing is not None and preprocessing.error is None:
                with suppress(TargetError):  # told where it is gathered
                    work.submit_preprocessing(Path(preprocessing.value))
            work.submit(work.open(export.value), self._dataset)
        except LedgerError:
            raise
        except Exception as error:
            self._finish(cell, work.row(describe(error)))
            return
        self._flying.append(flight)
        while len(self._flying) >= self._options.in_flight:
            self._land()

    def _land(self) -> None:
        """Gather the cell that has waited longest."""
        flight = self._flying.popleft()
        work, cell, error = flight.work, flight.work.cell, None
        self._progress.doing(f"{cell.model}: waiting for its jobs")
        try:
            work.known["preprocess_ms"] = self._preprocessing_of(cell, work.gather_preprocessing)
            embeddings = flight.embeddings
            if embeddings is not None and embeddings.error is not None:
                self._progress.note(f"{cell.model} is not compared with torch: {embeddings.error}")
            by_torch = None if embeddings is None else embeddings.value
            work.gather(work.open(flight.export.value), self._dataset, by_torch)
        except LedgerError:
            raise
        except Exception as problem:
            error = describe(problem)
        self._finish(cell, work.row(error))

    def _export(self, wave: list[Cell]) -> _Made:
        """What these cells need from the workers."""
        mine = [cell for cell in wave if cell.folder is None]
        new = {cell.preprocessing_key: cell for cell in mine}
        new = {key: cell for key, cell in new.items() if key not in self._preprocessing}
        jobs: list[Job] = [(self._tools.export, cell.export_args) for cell in mine]
        jobs += [
            (self._tools.export_preprocessing, (cell.entry.name, cell.weights, cell.contract))
            for cell in new.values()
        ]
        compared = [
            cell for cell in mine if isinstance(cell.target, AsyncTarget) and cell.dataset is not None
        ]
        jobs += [
            (
                self._tools.torch_embeddings,
                (cell.entry.name, cell.weights, cell.contract, cell.cut, self._options.dataset),
            )
            for cell in compared
        ]
        for cell in mine:
            self._ledger.start(cell.id, "export", cell.export_id)
        ends: dict[int, Done] = {}
        with self._busy():
            self._progress.doing(f"exporting {', '.join(cell.model for cell in wave)}")
            for done in self._workers.run(jobs):
                ends[done.index] = done
                if done.index >= len(mine):
                    continue
                cell = mine[done.index]
                if done.error is None:
                    self._ledger.finish(cell.id, "export", json.dumps(done.value))
                else:
                    self._ledger.fail(cell.id, "export", done.details or done.error)
        places = iter(range(len(jobs)))
        made = {cell.id: ends[next(places)] for cell in mine}
        self._preprocessing |= {key: ends[next(places)] for key in new}
        return _Made(
            exports=[made.get(cell.id) or Done(0, value=str(cell.folder)) for cell in wave],
            embeddings={cell.id: ends[next(places)] for cell in compared},
        )

    def _do(self, cell: Cell, export: Done) -> ResultRow:
        """Measure and score one cell. Whatever fails ends up in its row, but for the ledger itself."""
        work = CellWork(cell, self._ledger, self._since)
        work.known |= self._scored_on[cell.contract]
        if export.error is not None:
            return work.row(export.error)

        def doing(what: str) -> None:
            self._progress.doing(f"{cell.model}: {what}")

        try:
            artifact = work.open(export.value)
            with self._quiet() if cell.target.exclusive else nullcontext():
                work.known["preprocess_ms"] = self._preprocessing_of(
                    cell, lambda path: measure_preprocessing(path, cell, self._ledger, self._since)
                )
                work.measure(artifact, doing)
            if cell.dataset is not None:
                with self._busy():
                    doing("scoring")
                    work.score(artifact, self._dataset, self._tools)
        except LedgerError:
            raise
        except Exception as error:
            return work.row(describe(error))
        return work.row()

    def _unmeasured(self, cell: Cell) -> Done | None:
        """The export of a cell's preprocessing; None where it has none, or what it takes is settled."""
        settled = cell.preprocessing_key in self._preprocess_ms
        return None if settled else self._preprocessing.get(cell.preprocessing_key)

    def _preprocessing_of(self, cell: Cell, measure: Callable[[Path], float | None]) -> float | None:
        """Milliseconds of the in-graph preprocessing alone; where it fails the models still count.

        On this machine it is measured beside each model: what else the machine does changes from minute to
        minute. On a remote device it is measured once.
        """
        key, export = cell.preprocessing_key, self._unmeasured(cell)
        if export is None:
            return self._preprocess_ms.get(key)
        remote = isinstance(cell.target, AsyncTarget)
        self._progress.doing("measuring the in-graph preprocessing")
        problem, milliseconds = export.error, None
        try:
            if problem is None:
                milliseconds = measure(Path(export.value))
        except LedgerError:
            raise
        except Exception as error:
            if remote and not isinstance(error, JobFailedError):
                raise  # a later sweep may get it
            problem = describe(error)
        if problem is not None:
            self._progress.note(f"The in-graph preprocessing could not be measured by itself: {problem}")
        if remote or problem is not None:
            self._preprocess_ms[key] = milliseconds
        return milliseconds

    def _report(self) -> None:
        """Write the report of all rows; a report that fails does not stop the sweep."""
        out = self._options.out
        try:
            with self._busy(), self._ledger.reporting():
                self._progress.doing("writing the report")
                self._tools.write_report(self._ledger.rows(), out)
            self._outcome.report_problem = None
        except LedgerError:
            raise
        except Exception as error:
            if self._outcome.report_problem is None:
                self._progress.note(f"The report could not be written: {describe(error)}")
            self._outcome.report_problem = describe(error)

    def _busy(self) -> AbstractContextManager[None]:
        return busy_machine(lambda: self._progress.doing("waiting for another sweep's measurement"))

    def _quiet(self) -> AbstractContextManager[None]:
        return quiet_machine(lambda: self._progress.doing("waiting for another sweep's work on this machine"))
