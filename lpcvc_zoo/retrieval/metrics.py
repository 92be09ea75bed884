"""Retrieval metrics: recall@k counted both ways, in both directions, with its uncertainty and its chance.

``fraction`` is the challenge's way: per query, the part of the ground truth among the first k, then the mean.
``any`` is that of many papers: 1 where the first k hold any of it. The same name, often far apart.
Ties count as their expected value over all orders (see ``ranks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.retrieval.bootstrap import interval
from lpcvc_zoo.retrieval.ranks import Mode, Positives, Ranks, inverse, rank, rank_by_chance, rank_matrix
from lpcvc_zoo.retrieval.records import RetrievalDataset

Direction = Literal["image_to_text", "text_to_image"]
MODES: tuple[Mode, ...] = get_args(Mode)
KS = (1, 5, 10)


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


def recall_at_k(similarity: ArrayLike, positives: Positives, k: int, *, mode: Mode) -> float:
    """Mean recall@k over the rows of a similarity matrix, in [0, 1].

    ``similarity``: ``[Q, N]``, finite, higher is more alike; ``positives[q]``: the columns that belong to
    row ``q``, at least one, none twice. ``mode="fraction"``: the part of a row's positives among its first k
    columns (below 1 at best where it has more than k). ``mode="any"``: 1 where at least one is among them.
    Equal similarities count as their expected value over all orders, so a constant matrix gives chance.

    Raises ContractError for other shapes and values, and for a ``k`` below 1 or above N: over so small a
    pool, recall@k would be 1 for any model.
    """
    matrix = np.asarray(similarity)
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind not in "fiub":
        got = f"shape {list(matrix.shape)}, dtype {matrix.dtype}"
        raise ContractError("similarity", "numbers of shape [queries, pool]", got)
    bad = int(np.size(matrix) - np.isfinite(matrix).sum())
    if bad:
        raise ContractError("similarity", "finite numbers", f"{bad} NaN or infinite values")
    if mode not in MODES:
        raise ContractError("mode", "'fraction' or 'any'", repr(mode))
    _check_k(k, matrix.shape[1])
    _check_positives(positives, *matrix.shape)
    return float(rank_matrix(matrix, positives).recall(k, mode).mean())


def chance(dataset: RetrievalDataset, k: int, mode: Mode, direction: Direction = "image_to_text") -> float:
    """What ranking at random gives on a dataset, exactly: k / pool, or the hypergeometric chance of a hit.

    DatasetError where the pool is smaller than ``k``: recall@k would be 1 for any model.
    """
    positives: Positives = dataset.positives
    pool = len(dataset.texts)
    if direction == "text_to_image":
        positives, pool = inverse(positives, pool)[1], len(dataset.images)
    if k > pool:
        kind = "texts" if direction == "image_to_text" else "images"
        raise DatasetError(
            f"{dataset.name}: recall@{k} over {pool} {kind} would be 1 for any model; expected {k} or more."
        )
    return float(rank_by_chance(positives, pool).recall(k, mode).mean())


def score(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    dataset: RetrievalDataset,
    ks: Sequence[int] = KS,
) -> Scores:
    """All metrics from unit-length embeddings: ``[images, D]`` and ``[texts, D]`` in the dataset's order.

    Every k is scored in both modes and both directions; one above the size of a direction's pool is left out
    there. Texts that belong to no image are part of the pool, but no queries.
    """
    expected = (len(dataset.images), len(dataset.texts))
    if (len(images), len(texts)) != expected or images.ndim != 2 or images.shape[1:] != texts.shape[1:]:
        raise ContractError(
            "embeddings",
            f"[{expected[0]}, D] for images and [{expected[1]}, D] for texts",
            f"{list(images.shape)} and {list(texts.shape)}",
        )
    kept, owners = inverse(dataset.positives, len(dataset.texts))
    to_text = rank(images, texts, dataset.positives)
    to_image = rank(texts[kept], images, owners)
    return Scores(
        dataset=dataset.name,
        images=len(images),
        texts=len(texts),
        recalls=(
            *_recalls("image_to_text", to_text, dataset.positives, ks),
            *_recalls("text_to_image", to_image, owners, ks),
        ),
        median_rank_image_to_text=float(np.median(to_text.first())),
        median_rank_text_to_image=float(np.median(to_image.first())),
    )


def _recalls(direction: Direction, ranks: Ranks, positives: Positives, ks: Sequence[int]) -> list[Recall]:
    random = rank_by_chance(positives, ranks.pool)
    recalls: list[Recall] = []
    for mode in MODES:
        for k in ks:
            if k > ranks.pool:
                continue
            values = ranks.recall(k, mode)
            low, high = interval(values)
            recalls.append(
                Recall(
                    direction=direction, k=k, mode=mode, value=float(values.mean()), low=low, high=high,
                    chance=float(random.recall(k, mode).mean()),
                )
            )  # fmt: skip
    return recalls


def _check_k(k: Any, pool: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= pool:
        raise ContractError("k", f"a whole number from 1 to the pool's size, {pool}", repr(k))


def _check_positives(positives: Positives, queries: int, pool: int) -> None:
    if len(positives) != queries:
        raise ContractError("positives", f"one list per query, {queries}", str(len(positives)))
    for query, items in enumerate(positives):
        valid = all(0 <= item < pool for item in items)
        if not len(items) or not valid or len(set(items)) != len(items):
            expected = f"different columns from 0 to {pool - 1}, at least one"
            raise ContractError(f"positives[{query}]", expected, str(list(items)))
