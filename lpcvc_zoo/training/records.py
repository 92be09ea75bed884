"""What a run leaves to look at: metrics as CSV and for TensorBoard, and the learning curve as a picture."""

from __future__ import annotations

import csv
import importlib.util
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpcvc_zoo.files import write_text, written_whole

STEPS, EPOCHS, CURVE = "steps.csv", "epochs.csv", "curve.png"
_SECONDS_BETWEEN_PICTURES = 30.0
Row = Mapping[str, float | int | str]


class Table:
    """A CSV file that grows by rows.

    Opened at a step, it forgets what a killed run wrote after it, and a line that was cut off.
    """

    def __init__(self, path: Path, at_step: int) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
            self.rows = [row for row in csv.DictReader(whole) if _step(row) <= at_step]
            self._write()

    def add(self, row: Row) -> None:
        known = bool(self.rows) and list(row) == list(self.rows[0])
        self.rows.append({name: str(value) for name, value in row.items()})
        if not known:
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row.values())

    def column(self, name: str) -> list[float]:
        return [float(row[name]) for row in self.rows if row.get(name)]

    def _write(self) -> None:
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row["step"])
    except (KeyError, TypeError, ValueError):
        return float("inf")  # a line cut off by a kill


class Records:
    """Both tables, TensorBoard's events where it is installed, and the picture."""

    def __init__(self, folder: Path, at_step: int) -> None:
        self.folder, self._drawn = folder, 0.0
        self.steps, self.epochs = Table(folder / STEPS, at_step), Table(folder / EPOCHS, at_step)
        self.board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            purge = at_step + 1 if at_step else None
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def step(self, row: Row) -> None:
        self.steps.add(row)
        self._show(row, "train")

    def epoch(self, row: Row) -> None:
        self.epochs.add(row)
        self._show(row, "validation")
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_PICTURES:
            self.draw()

    def draw(self) -> None:
        """The learning curve: loss over steps, recall with its interval and chance over the same."""
        draw_curve(self.folder / CURVE, self.steps, self.epochs)
        self._drawn = time.monotonic()

    def close(self) -> None:
        if self.steps.rows:
            self.draw()
        if self.board is not None:
            self.board.close()

    def _show(self, row: Row, group: str) -> None:
        if self.board is None:
            return
        for name, value in row.items():
            if name not in ("step", "epoch") and not isinstance(value, str):
                self.board.add_scalar(f"{group}/{name}", value, int(row["step"]))
        self.board.flush()


def draw_curve(path: Path, steps: Table, epochs: Table) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps.column("step"), steps.column("loss"), color="#8a8a8a", linewidth=1, label="training loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    handles, labels = axes.get_legend_handles_labels()
    recalls = epochs.column("recall")
    if recalls:
        places = epochs.column("step")
        right = axes.twinx()
        right.plot(
            places, recalls, color="#1f6feb", marker="o", markersize=3, label=epochs.rows[-1]["metric"]
        )
        right.fill_between(places, epochs.column("low"), epochs.column("high"), color="#1f6feb", alpha=0.15)
        right.axhline(
            epochs.column("chance")[-1], color="#1f6feb", linestyle=":", linewidth=1, label="chance"
        )
        right.set_ylim(0, None)
        right.set_ylabel("validation recall")
        more: Sequence[Any] = right.get_legend_handles_labels()
        handles, labels = [*handles, *more[0]], [*labels, *more[1]]
    axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
