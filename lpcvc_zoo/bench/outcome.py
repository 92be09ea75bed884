"""How a sweep ended, and what is said about that."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from lpcvc_zoo.bench.options import SweepOptions
from lpcvc_zoo.bench.progress import summary_table
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.retrieval.records import RetrievalDataset, summary

INTERRUPTED = 130  # the shell's own status for Ctrl-C
REPORT_FILES = ("report.html", "pareto.png", "pareto.svg", "results.csv", "results.json")


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


def warn_of_problems(console: Console, dataset: RetrievalDataset) -> None:
    """Say what is wrong with a dataset that is used all the same."""
    warnings = [problem for problem in dataset.problems if problem.level == "warning"]
    if warnings:
        console.print(f"Dataset {dataset.name}: {summary(warnings)}", markup=False, soft_wrap=True)


def conclude(console: Console, options: SweepOptions, outcome: Outcome, planned: int) -> None:
    """Say how a sweep of ``planned`` cells ended, and where its report is."""
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
