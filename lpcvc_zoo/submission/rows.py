"""Rows of a ledger, found for a submission."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpcvc_zoo.bench.ledger import FILE, Ledger
from lpcvc_zoo.bench.report.view import names
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.errors import SubmissionError, UnknownNameError
from lpcvc_zoo.registry import get_entry

REFERENCE = "openai_clip_vit_b16"  # of the sample solution, whose latency the budget was taken from
SHORTEST_KEY = 6


def read_rows(folder: Path, *, ever: bool = False) -> list[ResultRow]:
    """The latest rows of a sweep's folder, or all there ``ever`` were; none where there was no sweep."""
    if not (folder / FILE).is_file():
        return []
    with Ledger(folder, read_only=True) as ledger:
        return ledger.history() if ever else ledger.rows()


def find_row(rows: Sequence[ResultRow], what: str) -> ResultRow:
    """The one row of that key (its first characters will do) or name ("entry" or "entry.tag").

    Rows that failed or that no compile jobs stand behind don't count. UnknownNameError suggests names,
    SubmissionError lists several rows of one name.
    """
    usable = [row for row in rows if row.error is None and len(compile_jobs(row)) == len(TOWERS)]
    by_key = [row for row in usable if len(what) >= SHORTEST_KEY and row.key.startswith(what)]
    found = by_key or [row for row in usable if what in (row.entry, row.model)]
    if not found:
        raise UnknownNameError(
            "result with compile jobs", what, [row.model for row in usable],
            "Expected two compile job ids, or a row of a sweep with --target aihub in the folder --results.",
        )  # fmt: skip
    if len(found) > 1:
        named = zip(found, names(found), strict=True)
        listed = "; ".join(f"{row.key[:12]}: {name}" for row, name in named)
        raise SubmissionError(f"{what!r} is {len(found)} rows. Give the key of one: {listed}.")
    return found[0]


def compile_jobs(row: ResultRow) -> dict[Tower, str]:
    return {job.tower: job.id for job in row.jobs if job.kind == "compile"}


def reference_ms(rows: Sequence[ResultRow], contract: str, device: str) -> float | None:
    """Milliseconds of both towers of OpenAI's whole CLIP, as floats, on that device; None if not measured."""
    entry = get_entry(REFERENCE)
    for row in reversed(rows):
        same = (row.entry, row.contract, row.device, row.precision) == (REFERENCE, contract, device, "float")
        whole = (
            row.text_length in (None, entry.text.context_length)
            and row.text_depth in (None, entry.text_layers)
            and row.image_size in (None, entry.image_size)
        )
        if same and whole and row.target == "aihub" and row.error is None and row.total_ms is not None:
            return row.total_ms
    return None
