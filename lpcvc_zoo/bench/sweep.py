"""The main job: every chosen model exported, measured, scored where it should be, and reported.

Exports run beside each other in worker processes; the workers are idle while a latency is measured, and a
machine-wide lock keeps other sweeps and exports of ours still meanwhile.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from lpcvc_zoo.bench.ledger import MARKS, Ledger, now
from lpcvc_zoo.bench.locks import busy_machine, held, quiet_machine
from lpcvc_zoo.bench.plan import Cell, plan, select
from lpcvc_zoo.bench.progress import Progress, summary_table
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.steps import CellWork, Tools, describe, measure_preprocessing
from lpcvc_zoo.bench.workers import Done, Job, Workers
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import LedgerError
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.retrieval.records import RetrievalDataset, summary
from lpcvc_zoo.targets import get_target
from lpcvc_zoo.targets.base import Target
from lpcvc_zoo.targets.onnxruntime import usable_cpus

MOST_JOBS = 4  # each export may take a few GB
POLL_S = 0.5
INTERRUPTED = 130  # the shell's own status for Ctrl-C
REPORT_FILES = ("report.html", "pareto.png", "pareto.svg", "results.csv", "results.json")


class SweepOptions(BaseModel):
    """What to sweep and how. ``models`` are patterns as in ``plan.select``; None means the default.

    ``rewrites``: as in ``export``; None means what each target asks for. ``precisions``: as in ``quantize``;
    with a quantised one, the bundled photos are scored without those that calibrate it.

    ``pretrained``: published weights always (True), never (False), or where they are on this machine (None).

    ``jobs`` exports run beside each other (default: one a CPU, four at most); ``threads`` are the target's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("onnxruntime",)
    device: str | None = None
    contracts: tuple[str, ...] = ("lpcvc2026",)
    precisions: tuple[str, ...] = ("float",)
    rewrites: str | None = None
    text_length: int | None = Field(default=None, ge=2)
    dataset: str = "photos"
    out: Path = Path("results")
    quick: bool = False
    pretrained: bool | None = None
    force: bool = False
    jobs: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    evaluate_untrained: bool = False
    fail_on_error: bool = False


@dataclass
class Outcome:
    """How a sweep ended. ``rows`` are those of this sweep's cells, cheapest first, new or from before."""

    rows: list[ResultRow] = field(default_factory=list)
    added: int = 0
    interrupted: bool = False
    report_problem: str | None = None

    @property
    def failed(self) -> int:
        return sum(row.error is not None for row in self.rows)

    def exit_code(self, fail_on_error: bool) -> int:
        if self.interrupted:
            return INTERRUPTED
        return int(self.report_problem is not None or (fail_on_error and self.failed > 0))


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

    Raises UnknownNameError for names nobody registered, DatasetError for a dataset that can't be read or is
    too small for the contract's metric, and LedgerError where the output folder or its ledger can't be used;
    all before any work.
    """
    console = console or Console()
    tools = tools or Tools()
    cells, dataset = _cells(options, tools, entries, targets)
    chance = {name: tools.chance(dataset, name) for name in options.contracts}
    _warn_of_problems(console, dataset)
    with Ledger(options.out) as ledger:
        outcome = _Sweep(options, tools, cells, dataset, chance, ledger, Progress(console, cells)).go()
    _conclude(console, options, outcome, len(cells))
    return outcome


def _cells(
    options: SweepOptions, tools: Tools, entries: Sequence[Entry] | None, targets: Sequence[Target] | None
) -> tuple[list[Cell], RetrievalDataset]:
    if entries is None:
        from lpcvc_zoo.registry import get_entry, list_models

        entries = [get_entry(name) for name in list_models()]
    if targets is None:
        targets = [
            get_target(name, device=options.device, threads=options.threads) for name in options.targets
        ]
    models = select(
        entries,
        options.models,
        quick=options.quick,
        weights=lambda entry: tools.weights(entry, options.pretrained),
    )
    name = options.dataset
    if name == photos.NAME and any(canonical(precision) != FLOAT for precision in options.precisions):
        name = photos.HELD_OUT  # for float too, so that a model's precisions can be compared
    dataset = tools.load_dataset(name)  # its chance is stated also where nothing is scored
    cells = plan(
        models,
        targets,
        tools.export_id,
        contracts=options.contracts,
        precisions=options.precisions,
        rewrites=options.rewrites,
        text_length=options.text_length,
        dataset=tools.fingerprint(dataset),
        evaluate_untrained=options.evaluate_untrained,
    )
    return cells, dataset


class _Sweep:
    def __init__(
        self,
        options: SweepOptions,
        tools: Tools,
        cells: list[Cell],
        dataset: RetrievalDataset,
        chance: dict[str, float],
        ledger: Ledger,
        progress: Progress,
    ) -> None:
        self._options, self._tools, self._cells, self._dataset = options, tools, cells, dataset
        self._chance, self._ledger, self._progress = chance, ledger, progress
        self._started = now()
        self._since = self._started if options.force else ""
        self._preprocess_ms: dict[str, float | None] = {}
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
        while pending:
            wave, pending = self._claim(pending, size)
            if wave:
                self._wave(wave)
                size = 2 * self._jobs  # larger waves even out exports of different length
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
        exports, preprocessing = self._export(wave)
        for cell, export in zip(wave, exports, strict=True):
            row = self._do(cell, export, preprocessing)
            self._ledger.append(cell, row)
            self._outcome.added += 1
            self._progress.finished(cell, row)
            self._report()

    def _export(self, wave: list[Cell]) -> tuple[list[Done], dict[str, Done]]:
        """Exports of these cells, in their order, and of each in-graph preprocessing not yet measured."""
        new = {cell.preprocessing_key: cell for cell in wave}
        new = {key: cell for key, cell in new.items() if key not in self._preprocess_ms}
        jobs: list[Job] = [(self._tools.export, cell.export_args) for cell in wave]
        jobs += [
            (self._tools.export_preprocessing, (cell.entry.name, cell.weights, cell.contract))
            for cell in new.values()
        ]
        for cell in wave:
            self._ledger.start(cell.id, "export", cell.export_id)
        ends: dict[int, Done] = {}
        with self._busy():
            self._progress.doing(f"exporting {', '.join(cell.model for cell in wave)}")
            for done in self._workers.run(jobs):
                ends[done.index] = done
                if done.index >= len(wave):
                    continue
                cell = wave[done.index]
                if done.error is None:
                    self._ledger.finish(cell.id, "export", json.dumps(done.value))
                else:
                    self._ledger.fail(cell.id, "export", done.details or done.error)
        exports = [ends[index] for index in range(len(wave))]
        return exports, {key: ends[len(wave) + place] for place, key in enumerate(new)}

    def _do(self, cell: Cell, export: Done, preprocessing: dict[str, Done]) -> ResultRow:
        """Measure and score one cell. Whatever fails ends up in its row, but for the ledger itself."""
        work = CellWork(cell, self._ledger, self._since)
        work.known |= {"dataset": self._dataset.name, "chance": self._chance[cell.contract]}
        if export.error is not None:
            return work.row(export.error)

        def doing(what: str) -> None:
            self._progress.doing(f"{cell.model}: {what}")

        try:
            artifact = work.open(export.value)
            with self._quiet() if cell.target.exclusive else nullcontext():
                work.known["preprocess_ms"] = self._preprocessing(cell, preprocessing)
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

    def _preprocessing(self, cell: Cell, exports: dict[str, Done]) -> float | None:
        """Milliseconds of the in-graph preprocessing alone; where it fails the models still count."""
        key = cell.preprocessing_key
        if key not in self._preprocess_ms:
            self._progress.doing("measuring the in-graph preprocessing")
            problem, milliseconds = exports[key].error, None
            try:
                if problem is None:
                    path = Path(exports[key].value)
                    milliseconds = measure_preprocessing(path, cell, self._ledger, self._since)
            except LedgerError:
                raise
            except Exception as error:
                problem = describe(error)
            if problem is not None:
                self._progress.note(f"The in-graph preprocessing could not be measured by itself: {problem}")
            self._preprocess_ms[key] = milliseconds
        return self._preprocess_ms[key]

    def _report(self) -> None:
        """Write the report of all rows; a report that fails does not stop the sweep."""
        out = self._options.out
        try:
            # The lock keeps two sweeps from overwriting a newer report with an older one.
            with self._busy(), held(out / MARKS / "report.lock"):
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


def _warn_of_problems(console: Console, dataset: RetrievalDataset) -> None:
    warnings = [problem for problem in dataset.problems if problem.level == "warning"]
    if warnings:
        console.print(f"Dataset {dataset.name}: {summary(warnings)}", markup=False, soft_wrap=True)


def _conclude(console: Console, options: SweepOptions, outcome: Outcome, planned: int) -> None:
    if outcome.interrupted:
        console.print(
            f"\nStopped. {len(outcome.rows)} of {planned} are done and kept in {options.out}. "
            "Run the same command again to go on from here.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    console.print()
    console.print(summary_table(outcome.rows))
    before = len(outcome.rows) - outcome.added
    kept = f", {before} were there before" if before > 0 else ""
    console.print(
        f"\n{outcome.added} measured now{kept}, {outcome.failed} failed.", highlight=False, soft_wrap=True
    )
    if outcome.report_problem is not None:
        console.print(
            f"The report could not be written: {outcome.report_problem}", markup=False, soft_wrap=True
        )
    for file in (options.out / name for name in REPORT_FILES):
        if file.exists():
            console.print(f"  {file}", highlight=False, soft_wrap=True)
