"""A folder of images with one captions file: CSV or TSV with a row a caption, or JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lpcvc_zoo.retrieval.files import Column, ImageFinder, parse_json, read_utf8, two_columns
from lpcvc_zoo.retrieval.records import DatasetBuilder, text_flaw, text_key

SUFFIXES = (".csv", ".tsv", ".jsonl")
FILES = tuple(f"{stem}{suffix}" for stem in ("captions", "metadata") for suffix in SUFFIXES)

_IMAGE = Column("image file name", ("image", "file_name", "filename", "image_name", "image_path", "file"))
_TEXT = Column("caption", ("caption", "captions", "text", "texts", "sentence"))


def read(path: Path, finder: ImageFinder, builder: DatasetBuilder) -> None:
    """Read (image, caption) pairs; an image may have any number of rows, a caption any number of images.

    CSV and TSV: a header that names both columns, others are ignored; without one the first column is the
    image and the second the caption; quoted as in CSV. JSON Lines: an object a line, whose caption is a
    string or a list of strings. Names of columns and keys: see ``_IMAGE`` and ``_TEXT``.

    Warnings: images that are not on disk, captions that are blank or can't be tokenised, lines of another
    form. Notes: a caption given twice for one image, image files without a row.
    """
    rows = (
        _json_lines(path, builder)
        if path.suffix.lower() == ".jsonl"
        else two_columns(
            path, _IMAGE, _TEXT, builder, delimiter="\t" if path.suffix.lower() == ".tsv" else ","
        )
    )
    listed: set[Path] = set()
    seen: set[tuple[Path, str]] = set()
    for row, name, text in rows:
        try:
            image = finder.find(name)
        except LookupError as error:
            builder.warn(path, row, f"{error}; the row is dropped")
            continue
        listed.add(image)
        if flaw := text_flaw(text):
            builder.warn(path, row, f"{name!r} has {flaw}; skipped")
            continue
        key = text_key(text)
        if (image, key) in seen:
            builder.note(path, row, f"{name!r} has this caption already; it counts once")
        seen.add((image, key))
        builder.link(image, [builder.text(text)])
    finder.note_unlisted(path, listed, builder)


def _json_lines(path: Path, builder: DatasetBuilder) -> Iterator[tuple[int, str, str]]:
    for row, line in enumerate(read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        item = parse_json(line, path, row)
        image, texts = _value(item, _IMAGE), _value(item, _TEXT)
        texts = [texts] if isinstance(texts, str) else texts
        if (
            not isinstance(image, str)
            or not isinstance(texts, list)
            or not all(isinstance(text, str) for text in texts)
        ):
            message = (
                f"expected an object with {_either(_IMAGE)} (a string) and {_either(_TEXT)} (a string or a "
                "list of strings); skipped"
            )
            builder.warn(path, row, message)
            continue
        if not texts:
            builder.warn(path, row, f"{image!r} has no caption; skipped")
        for text in texts:
            yield row, image, text


def _value(item: Any, column: Column) -> Any:
    if not isinstance(item, dict):
        return None
    return next((item[name] for name in column.names if name in item), None)


def _either(column: Column) -> str:
    return " or ".join(map(repr, column.names))
