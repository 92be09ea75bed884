"""What a sweep shows while it runs: a live bar on a terminal, plain lines elsewhere; a table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from lpcvc_zoo.bench.plan import Cell
from lpcvc_zoo.bench.report.view import names, told_apart
from lpcvc_zoo.bench.row import ResultRow


class Progress:
    """Counts cells, and tells the time left from the work done so far (cells differ much in cost)."""

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self.console = console
        self._names = dict(zip(map(id, cells), cell_names(cells), strict=True))
        self._count, self._cells_done = len(cells), 0
        self._work_left, self._work_done = sum(cell.work for cell in cells), 0.0
        self._started = time.monotonic()
        self._doing = ""
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._bar)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def doing(self, text: str) -> None:
        """What goes on now; shown live only."""
        self._doing = text

    def note(self, text: str) -> None:
        """A line that stays."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def skipped(self, cell: Cell) -> None:
        """A cell that needs no work in this sweep."""
        self._cells_done += 1
        self._work_left -= cell.work

    def finished(self, cell: Cell, row: ResultRow) -> None:
        self._cells_done += 1
        self._work_left -= cell.work
        self._work_done += cell.work
        place = f"{self._cells_done:>{len(str(self._count))}}/{self._count}"
        left = "" if self._live or self._cells_done == self._count else f" ({self.time_left()} left)"
        failed = row.error and f"FAILED: {row.error.splitlines()[0]}"
        self.note(f"{place}  {self._names[id(cell)]}  {failed or _latencies(row) + _scored(row)}{left}")

    def time_left(self) -> str:
        """A rough duration, such as "about 3 min"; "time unknown" before anything is done."""
        if self._work_done <= 0:
            return "time unknown"
        seconds = (time.monotonic() - self._started) * self._work_left / self._work_done
        return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"

    def _bar(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        total = self._work_left + self._work_done
        grid.add_row(
            ProgressBar(total=max(total, 1e-9), completed=self._work_done, width=30),
            f"{self._cells_done}/{self._count}",
            f"{self.time_left()} left" if self._work_done else "",
            escape(self._doing),
        )
        return grid


def cell_names(cells: Sequence[Cell]) -> list[str]:
    """A name for each cell before its row is there, in which it differs from the others."""
    return told_apart(
        [cell.label for cell in cells],
        [cell.precision for cell in cells],
        [cell.rewrites for cell in cells],
        [cell.target.name for cell in cells],
        [cell.target.device for cell in cells],
        [cell.contract for cell in cells],
        [str(cell.folder or "") for cell in cells],
    )


def summary_table(rows: Sequence[ResultRow]) -> Table:
    """The rows of a sweep in few columns, in the order given; the report has all of them."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", overflow="fold")
    for header in ("image ms", "text ms", "sum ms"):
        table.add_column(header, justify="right")
    estimated = any(row.moved_mb is not None for row in rows)
    if estimated:
        table.add_column("MB moved (static)", justify="right")
    table.add_column("recall@10, or why not")
    for row, name in zip(rows, names(rows), strict=True):
        cells = [name, _number(row.image_ms), _number(row.text_ms), _number(row.total_ms)]
        if estimated:
            cells.append(_number(row.moved_mb))
        cells.append(f"failed: {row.error.splitlines()[0]}" if row.error else _recall(row) or "not scored")
        table.add_row(*map(escape, cells))
    return table


def _latencies(row: ResultRow) -> str:
    if row.total_ms is None and row.moved_mb is not None:
        moved = f"image {_number(row.image_moved_mb)} MB, text {_number(row.text_moved_mb)} MB"
        return f"{moved} moved (static estimate)"
    return f"image {_number(row.image_ms)} ms, text {_number(row.text_ms)} ms"


def _scored(row: ResultRow) -> str:
    told = _recall(row)
    if row.scores is not None:
        told = f"recall@{row.scores.recall().k} {told}"
    return f", {told}" if told else ""


def _recall(row: ResultRow) -> str:
    if row.scores is None:
        return "" if row.trained else "untrained"
    recall = row.scores.recall()
    chance = "" if row.trained else f" (untrained; chance {recall.chance:.3f})"
    return f"{recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}]{chance}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
