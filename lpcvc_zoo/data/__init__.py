"""What comes with the package: the photo benchmark (``load_dataset("photos")``), and trained weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
PHOTOS = Path(__file__).parent / "photos"
SHIPPED = Path(__file__).parent / "weights"
CALIBRATION_PHOTOS = 48  # of 163


def sample_photos(count: int) -> list[Path]:
    """``count`` photos spread evenly over the benchmark, the same ones every time."""
    return _spread(sorted((PHOTOS / "images").glob("*.jpg")), count)


def sample_captions(count: int) -> list[str]:
    """``count`` captions spread evenly over the benchmark, the same ones every time."""
    with (PHOTOS / "txt_list.csv").open(encoding="utf-8-sig", newline="") as file:
        return _spread([row["Unique_Texts"] for row in csv.DictReader(file)], count)


def calibration_pool() -> tuple[list[Path], list[str]]:
    """Photos and captions to calibrate quantisation on: never among those that score quantised models.

    No caption is taken that also belongs to a photo outside the pool.
    """
    photos = _spread(sorted((PHOTOS / "images").glob("*.jpg")), CALIBRATION_PHOTOS)
    names = {photo.name for photo in photos}
    inside: set[str] = set()
    outside: set[str] = set()
    with (PHOTOS / "img_list.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            (inside if row["Image_names"] in names else outside).update(row["Text_nums"].split(";"))
    with (PHOTOS / "txt_list.csv").open(encoding="utf-8-sig", newline="") as file:
        texts = [row["Unique_Texts"] for row in csv.DictReader(file) if row["Text_nums"] in inside - outside]
    return photos, texts


def _spread(items: list[Item], count: int) -> list[Item]:
    return [items[index * len(items) // count] for index in range(count)]
