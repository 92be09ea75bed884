"""The photo benchmark that ships with the package, so that a fresh machine has something real to score."""

from __future__ import annotations

from collections.abc import Iterable

from lpcvc_zoo.data import PHOTOS, calibration_pool
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.retrieval import lpcvc_csv
from lpcvc_zoo.retrieval.files import ImageFinder
from lpcvc_zoo.retrieval.records import DatasetBuilder, RetrievalDataset

NAME, HELD_OUT, CALIBRATION = "photos", "photos_heldout", "photos_calibration"
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


def load_held_out(*, strict: bool = False) -> RetrievalDataset:
    """The photos that calibrate no quantisation, with their texts alone: to score quantised models."""
    return _part(HELD_OUT, strict, "Without the photos that calibrate quantisation.", calibrating=False)


def scored_on(dataset: str, precisions: Iterable[str]) -> str:
    """The dataset's name, or the held-out part's where the bundled photos may have calibrated a precision.

    One name for all precisions, so that they can be compared.
    """
    quantised = any(canonical(precision) != FLOAT for precision in precisions)
    return HELD_OUT if quantised and dataset == NAME else dataset


def load_calibration(*, strict: bool = False) -> RetrievalDataset:
    """The photos that quantisation may be calibrated on, with their texts: not to score on."""
    return _part(CALIBRATION, strict, "Only the photos that calibrate quantisation.", calibrating=True)


def _part(name: str, strict: bool, note: str, *, calibrating: bool) -> RetrievalDataset:
    whole = load(strict=strict)
    pool = {photo.name for photo in calibration_pool()[0]}
    kept = [place for place, image in enumerate(whole.images) if (image.name in pool) == calibrating]
    return whole.part(name, kept, note)
