"""The challenge's own form: ``txt_list.csv`` (text id, text) and ``img_list.csv`` (file name, id;id;id)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpcvc_zoo.errors import DatasetError
from lpcvc_zoo.retrieval.files import Column, ImageFinder, two_columns
from lpcvc_zoo.retrieval.records import DatasetBuilder, text_flaw, text_key

TEXT_LIST, IMAGE_LIST = "txt_list.csv", "img_list.csv"

_TEXT_ID = Column("text id", ("text_nums", "text_num", "text_ids", "text_id", "id"))
_TEXT = Column("text", ("unique_texts", "unique_text", "texts", "text", "caption"))
_IMAGE = Column("image file name", ("image_names", "image_name", "images", "image", "file_name", "filename"))
_IMAGE_TEXTS = Column("text ids joined by ';'", ("text_nums", "text_num", "text_ids", "text_id"))


def read(folder: Path, finder: ImageFinder, builder: DatasetBuilder) -> None:
    """Read both lists. Images are matched to rows by file name, never by order.

    Warnings: unknown text ids, images that are not on disk, rows left without a text, one id given to
    two texts, blank texts. Notes: two ids with one text (merged), an image in two rows (merged), image
    files in no row (ignored).
    """
    for name in (TEXT_LIST, IMAGE_LIST):
        if not (folder / name).is_file():
            raise DatasetError(
                f"{folder} holds no {name}; this form needs both {TEXT_LIST} and {IMAGE_LIST}."
            )
    texts = _read_texts(folder / TEXT_LIST, builder)
    path = folder / IMAGE_LIST
    listed: set[Path] = set()
    for row, name, ids in two_columns(path, _IMAGE, _IMAGE_TEXTS, builder, numbers_in=1):
        try:
            image = finder.find(name)
        except LookupError as error:
            builder.warn(path, row, f"{error}; the row is dropped")
            continue
        listed.add(image)
        known = _known(ids, texts, path, row, builder)
        if not known:
            builder.warn(path, row, f"no known text is left for {name!r}; the row is dropped")
            continue
        if builder.has(image):
            builder.note(path, row, f"{name!r} has an earlier row; their texts are merged")
        builder.link(image, known)
    finder.note_unlisted(path, listed, builder)


def _read_texts(path: Path, builder: DatasetBuilder) -> dict[str, int]:
    """Index in the pool by text id."""
    texts: dict[str, int] = {}
    first_with: dict[int, str] = {}
    for row, shown, text in two_columns(path, _TEXT_ID, _TEXT, builder, numbers_in=0):
        identity = _normal(shown)
        if flaw := text_flaw(text):
            builder.warn(path, row, f"text id {shown!r} has {flaw}; skipped")
            continue
        if identity in texts:
            if builder.key_at(texts[identity]) != text_key(text):
                message = f"text id {shown!r} was given to another text before; this row is skipped"
                builder.warn(path, row, message)
            continue
        index = builder.text(text)
        texts[identity] = index
        if index in first_with:
            builder.note(path, row, f"the same text as id {first_with[index]!r}; the two count as one")
        first_with.setdefault(index, shown)
    return texts


def _known(ids: str, texts: dict[str, int], path: Path, row: int, builder: DatasetBuilder) -> Sequence[int]:
    known: list[int] = []
    for shown in filter(None, (part.strip() for part in ids.split(";"))):
        if _normal(shown) in texts:
            known.append(texts[_normal(shown)])
        else:
            builder.warn(path, row, f"unknown text id {shown!r}; ignored")
    return known


def _normal(identity: str) -> str:
    """Text ids that are numbers are compared as numbers: 007 is 7."""
    return identity.lstrip("0") or "0" if identity.isdecimal() else identity
