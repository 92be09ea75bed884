"""CSV files of measurements that grow from run to run: what is measured again takes its old row's place."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.files import try_to_write_file, written_whole


class Record:
    """Rows of one CSV file, one for each value of the columns ``key``; ``facts`` are the other columns.

    ZooError for a path that can't be written to, and for a file of anything else: what it holds is not lost.
    """

    def __init__(self, path: Path, key: Sequence[str], facts: Sequence[str]) -> None:
        self.path, self.key, self.columns = path, key, [*key, *facts]
        try:
            try_to_write_file(path)
        except OSError as error:
            raise ZooError(f"{path} can't be written ({error.strerror}). Name another --out.") from None
        self.rows()  # now, not after minutes of measuring

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put rows into the file at once, so that whatever comes next does not lose them."""
        found = self.rows()  # as they are by now: another run may have added some
        for row in rows:
            found[tuple(str(row[name]) for name in self.key)] = row
        with written_whole(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(found.values())

    def rows(self) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """What the file holds, as text, by the values of ``key``; nothing where it is not there."""
        if not self.path.exists():
            return {}
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ZooError(f"{self.path} can't be read ({error}). Name another --out.") from None
        header, *rest = lines or [[]]
        odd = [line for line in rest if len(line) != len(self.columns)]
        if header != self.columns or odd:
            got = odd[0] if header == self.columns else header
            raise ZooError(
                f"{self.path}: expected lines of {', '.join(self.columns)}, got {', '.join(got) or 'none'}. "
                "Name another --out, or put that file away."
            )
        rows = [dict(zip(self.columns, line, strict=True)) for line in rest]
        return {tuple(row[name] for name in self.key): row for row in rows}
