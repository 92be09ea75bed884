"""What a sweep found, as files to look at: the page, the picture, and the rows in full."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lpcvc_zoo.bench.pareto import compare
from lpcvc_zoo.bench.report.figure import draw, save
from lpcvc_zoo.bench.report.page import page
from lpcvc_zoo.bench.report.table import csv_text, json_text
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.files import write_text, written_whole


def write_report(rows: Sequence[ResultRow], folder: Path) -> None:
    """Write the five files of a report into ``folder``, each whole or not at all.

    ``rows`` may be empty, unscored, failed, or from several contracts, targets and datasets; every one of
    them is in the table, and what may be compared is drawn together. OSError where a file can't be written.
    """
    made = datetime.now(UTC).isoformat(timespec="seconds")
    groups = compare(rows)
    ordered = [row for group in groups for row in group.rows]
    write_text(folder / "results.csv", csv_text(ordered))
    write_text(folder / "results.json", json_text(ordered, made))
    write_text(folder / "report.html", page(groups, made))
    figure = draw(groups)
    for kind in ("png", "svg"):
        with written_whole(folder / f"pareto.{kind}") as temporary:
            save(figure, temporary, kind)
