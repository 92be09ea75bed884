"""What a run shows: a live bar with the time left on a terminal, lines that stay everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lpcvc_zoo.errors import DatasetError
from lpcvc_zoo.retrieval.records import Problem, summary

Say = Callable[[str], None]  # shows a line that stays
_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal to redraw


def tell(problems: Sequence[Problem], say: Say, *, strict: bool = False) -> None:
    """What was odd in the files, the first few and how many. DatasetError for warnings under ``strict``."""
    for level in ("warning", "note"):
        if found := [problem for problem in problems if problem.level == level]:
            if strict and level == "warning":
                raise DatasetError(f"The data has flaws; {summary(found)}.")
            say(f"{level}: {summary(found)}")


class RunProgress:
    """A bar for what is done now; ``quiet`` for processes other than the first."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._shown = "", 0.0
        if console is not None and console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("left  {task.fields[note]}"), console=console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> RunProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def at(self, what: str, done: int, total: int, note: str = "") -> None:
        """How far the work called ``what`` is."""
        if self.console is None:
            return
        if what != self._what:
            self._what, self._first, self._began = what, done, time.monotonic()
            self._shown = self._began
            if self._live is not None:
                if self._task is not None:
                    self._live.remove_task(self._task)
                self._task = self._live.add_task(what, total=total, note=note)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES and done > self._first:
            self._shown = time.monotonic()
            left = (self._shown - self._began) * (total - done) / (done - self._first)
            self.say(f"{what}: {done} of {total}, about {_duration(left)} left  {note}".rstrip())

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.console is not None:
            self.console.print(escape(text), highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
