"""Retrieval metrics and their uncertainty. (Records first; see the functions below.)"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Mode = Literal["fraction", "any"]
Direction = Literal["image_to_text", "text_to_image"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recall(_Record):
    """One recall@k in [0, 1] with its bootstrap 95 % interval over queries and what chance would give."""

    direction: Direction
    k: int
    mode: Mode
    value: float
    low: float
    high: float
    chance: float


class Scores(_Record):
    """All metrics of one model on one dataset."""

    dataset: str
    images: int
    texts: int
    recalls: tuple[Recall, ...]
    median_rank_image_to_text: float
    median_rank_text_to_image: float

    def recall(self, k: int = 10, mode: Mode = "fraction", direction: Direction = "image_to_text") -> Recall:
        for recall in self.recalls:
            if (recall.k, recall.mode, recall.direction) == (k, mode, direction):
                return recall
        raise KeyError(f"no recall@{k} ({mode}, {direction}) was computed")
