"""The bundled photo benchmark's files; ``load_dataset("photos")`` reads them as a dataset."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
PHOTOS = Path(__file__).parent / "photos"


def sample_photos(count: int) -> list[Path]:
    """``count`` photos spread evenly over the benchmark, the same ones every time."""
    return _spread(sorted((PHOTOS / "images").glob("*.jpg")), count)


def sample_captions(count: int) -> list[str]:
    """``count`` captions spread evenly over the benchmark, the same ones every time."""
    with (PHOTOS / "txt_list.csv").open(encoding="utf-8-sig", newline="") as file:
        return _spread([row["Unique_Texts"] for row in csv.DictReader(file)], count)


def _spread(items: list[Item], count: int) -> list[Item]:
    return [items[index * len(items) // count] for index in range(count)]
