"""The photo benchmark that ships with the package, so that a fresh machine has something real to score."""

from __future__ import annotations

from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.retrieval import lpcvc_csv
from lpcvc_zoo.retrieval.files import ImageFinder
from lpcvc_zoo.retrieval.records import DatasetBuilder, RetrievalDataset

NAME = "photos"
NOTE = (
    "Small, landmark- and tool-heavy, not the challenge's data, not comparable to COCO or Flickr30k. "
    "Never train or tune on it."
)


def load(*, strict: bool = False) -> RetrievalDataset:
    """163 photos with 474 texts in the challenge's own CSV form."""
    builder = DatasetBuilder(NAME, strict=strict)
    finder = ImageFinder(PHOTOS / "images")
    lpcvc_csv.read(PHOTOS, finder, builder)
    licence = "photos: public domain or CC0, see CREDITS.csv; texts: Apache-2.0"
    return builder.build(licence=licence, note=NOTE, looked_in=finder.folders)
