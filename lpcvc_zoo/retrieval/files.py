"""Reading the files of a dataset: tables and JSON that may be broken, and images listed under odd names."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lpcvc_zoo.errors import DatasetError
from lpcvc_zoo.retrieval.records import DatasetBuilder

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Column:
    """A column by what it holds and by the names it goes under (lower case, "_" for spaces)."""

    title: str
    names: tuple[str, ...]


def read_utf8(path: Path) -> str:
    """A text file, with or without a byte order mark. DatasetError for other encodings and binary files."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror or error}.") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}: expected UTF-8, but line {line} holds the byte 0x{raw[error.start]:02x}. "
            "Save it as UTF-8."
        ) from None
    if "\0" in text:
        raise DatasetError(
            f"{path}: expected UTF-8 text, but line {text.count(chr(10), 0, text.index(chr(0))) + 1} holds "
            "a NUL byte: it is a binary file or has another encoding."
        )
    return text


def read_json(path: Path) -> Any:
    """A JSON document; DatasetError where it is not one."""
    return parse_json(read_utf8(path), path)


def parse_json(text: str, path: Path, row: int | None = None) -> Any:
    where = f"{path}" if row is None else f"{path}, row {row}"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{where}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON that can be read: {error}.") from None


def two_columns(
    path: Path,
    first: Column,
    second: Column,
    builder: DatasetBuilder,
    *,
    numbers_in: int | None = None,
    delimiter: str = ",",
) -> Iterator[tuple[int, str, str]]:
    """(row, first, second) of a CSV file, found by column names, or by place where there are none.

    ``numbers_in``: the place of a column of numbers, by which a header with unknown names gives itself away.
    Other columns are ignored. Rows that are too short are skipped and rows that are too long kept, both with
    a warning. DatasetError for files without rows or without these columns.
    """
    rows = list(_rows(path, delimiter))
    if not rows:
        raise DatasetError(f"{path} is empty; expected rows of {first.title} and {second.title}.")
    header = rows[0][1]
    names = [cell.lower().replace(" ", "_") for cell in header]
    if set(names) & {*first.names, *second.names} or _is_header(rows, numbers_in):
        places = [_place(path, header, names, column) for column in (first, second)]
        rows = rows[1:]
    elif len(header) < 2:
        raise DatasetError(
            f"{path}: expected two columns, {first.title} and {second.title}; found one: {header}."
        )
    else:
        places = [0, 1]
    for number, cells in rows:
        if len(cells) <= max(places):
            builder.warn(path, number, f"{len(cells)} columns, expected {len(header)}; skipped")
            continue
        if len(cells) > len(header):
            kind = "comma" if delimiter == "," else "tab"
            message = f"{len(cells)} columns, expected {len(header)}; text with a {kind} must be quoted"
            builder.warn(path, number, message)
        yield number, cells[places[0]], cells[places[1]]


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line it starts on; cells without surrounding spaces."""
    # strict: otherwise a quote that is never closed would quietly swallow the rest of the file
    reader = csv.reader(io.StringIO(read_utf8(path), newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield start, stripped
            start = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path}: not a valid CSV file: {error} (in the row at line {start}).") from None


def _is_header(rows: Sequence[tuple[int, list[str]]], numbers_in: int | None) -> bool:
    if numbers_in is None or len(rows) < 2:
        return False
    cells = [row[numbers_in] if len(row) > numbers_in else "" for _, row in rows]
    numeric = [all(part.strip().isdecimal() for part in cell.split(";") if part.strip()) for cell in cells]
    return not numeric[0] and all(numeric[1:])


def _place(path: Path, header: list[str], names: list[str], column: Column) -> int:
    for name in column.names:
        if name in names:
            return names.index(name)
    raise DatasetError(
        f"{path}: no column holds the {column.title}. Columns found: {', '.join(map(repr, header))}; "
        f"expected one named {' or '.join(map(repr, column.names))}."
    )


class ImageFinder:
    """Finds listed images in folders. The exact name is preferred; else case and Unicode form don't count."""

    def __init__(self, *folders: Path) -> None:
        self.folders = tuple(folder for folder in folders if folder.is_dir())
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path:
        """The file of that name or relative path. LookupError says why there is none."""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise LookupError(f"{name!r} is not the name of a file inside the image folder")
        for exact in (True, False):
            for folder in self.folders:
                found = self._descend(folder, parts, exact, name)
                if found is not None:
                    return found
        raise LookupError(f"image {name!r} not found")

    def note_unlisted(self, path: Path, listed: set[Path], builder: DatasetBuilder) -> None:
        """Note the image files that lie beside listed ones and are not listed in ``path``."""
        for folder in sorted({image.parent for image in listed} & set(self.folders)):
            names = sorted(name for same in self._listing(folder).values() for name in same)
            images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            extra = [name for name in images if folder / name not in listed]
            if extra:
                shown = ", ".join(extra[:3]) + (", ..." if len(extra) > 3 else "")
                builder.note(path, None, f"{len(extra)} image files are in no row and are ignored: {shown}")

    def _descend(self, folder: Path, parts: Sequence[str], exact: bool, name: str) -> Path | None:
        for depth, part in enumerate(parts):
            alike = self._listing(folder).get(_file_key(part), [])
            if part in alike:
                alike = [part]
            elif exact or not alike:
                return None
            elif len(alike) > 1:
                raise LookupError(f"{name!r} is no exact file name and matches several: {sorted(alike)}")
            folder = folder / alike[0]
            if not (folder.is_file() if depth == len(parts) - 1 else folder.is_dir()):
                return None
        return folder

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                for path in folder.iterdir():
                    listing.setdefault(_file_key(path.name), []).append(path.name)
            except OSError as error:
                reason = error.strerror or error
                raise DatasetError(f"The folder {folder} can't be listed: {reason}.") from None
            self._listings[folder] = listing
        return self._listings[folder]


def _file_key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
