"""Where the texts (or images) that belong to a query ended up, without ever holding all similarities.

Ties are neither broken nor won: every figure is its expected value over all orders of the tied items. A
model that gives every item the same embedding therefore scores exactly chance, whatever the order of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Positives = Sequence[Sequence[int]]
Mode = Literal["fraction", "any"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Cosines closer than this are a tie: float32 embeddings can't tell them apart (their rounding is 6e-8).
TIE = 1e-7
_BLOCK = 1 << 22  # similarities held at once: 32 MB


@dataclass(frozen=True, eq=False)
class Ranks:
    """For each query and each of its positives, how much of the pool lies above it and how much is tied.

    The pairs of query ``q`` are those from ``starts[q]`` to ``starts[q + 1]``. ``above[p]``: items of the
    pool that score higher than the pair's positive; ``tied[p]``: items that score the same, itself included.
    ``best_above``, ``best_tied``: these of each query's best positive; ``best_positives``: how many of the
    tied items there are positives.
    """

    pool: int
    starts: Integers
    above: Integers
    tied: Integers
    best_above: Integers
    best_tied: Integers
    best_positives: Integers

    def recall(self, k: int, mode: Mode) -> Floats:
        """Recall@k of every query, ``[Q]`` in [0, 1], its expected value where there are ties.

        ``fraction``: the part of the query's positives that are among the first k. ``any``: 1 where at
        least one is.
        """
        if mode == "fraction":
            found = np.clip((k - self.above) / self.tied, 0.0, 1.0)
            return np.asarray(np.add.reduceat(found, self.starts[:-1]) / np.diff(self.starts))
        return hit_probability(self.best_tied, self.best_positives, k - self.best_above)

    def first(self) -> Floats:
        """The rank of every query's best positive, ``[Q]``, from 1; expected value where there are ties."""
        return np.asarray(self.best_above + (self.best_tied + 1) / (self.best_positives + 1))


def rank(queries: NDArray[np.floating], pool: NDArray[np.floating], positives: Positives) -> Ranks:
    """Rank the pool for each query by inner product, in blocks of bounded size and in double precision.

    ``queries`` ``[Q, D]``, ``pool`` ``[N, D]``, both of unit length; ``positives[q]`` holds the indices in
    ``pool`` of what belongs to query ``q``, at least one.
    """
    starts, owner, item = pairs(positives)
    scores = np.empty(len(item))
    step = max(1, _BLOCK // queries.shape[1])
    for begin in range(0, len(item), step):
        part = slice(begin, begin + step)
        left, right = queries[owner[part]].astype(np.float64), pool[item[part]].astype(np.float64)
        scores[part] = np.einsum("nd,nd->n", left, right)
    above, at_least = np.zeros(len(item), np.int64), np.zeros(len(item), np.int64)
    width = min(len(pool), 1 << 16)
    height = max(1, _BLOCK // width)
    for top in range(0, len(queries), height):
        rows = queries[top : top + height].astype(np.float64)
        begin, end = int(starts[top]), int(starts[min(top + height, len(queries))])
        for left_edge in range(0, len(pool), width):
            block = rows @ pool[left_edge : left_edge + width].astype(np.float64).T
            for first in range(begin, end, height):  # a query may have any number of positives
                part = slice(first, min(first + height, end))
                similar, score = block[owner[part] - top], scores[part, None]
                above[part] += np.count_nonzero(similar > score + TIE, axis=1)
                at_least[part] += np.count_nonzero(similar >= score - TIE, axis=1)
    return _from_counts(len(pool), starts, owner, scores, above, at_least - above, TIE)


def rank_matrix(similarity: NDArray[np.floating], positives: Positives) -> Ranks:
    """Rank the columns of a similarity matrix ``[Q, N]`` for each row; only equal numbers are tied."""
    starts, owner, item = pairs(positives)
    scores = similarity[owner, item]
    above, tied = np.empty(len(item), np.int64), np.empty(len(item), np.int64)
    for pair, (row, score) in enumerate(zip(owner, scores, strict=True)):
        above[pair] = np.count_nonzero(similarity[row] > score)
        tied[pair] = np.count_nonzero(similarity[row] == score)
    return _from_counts(similarity.shape[1], starts, owner, scores, above, tied, 0.0)


def rank_by_chance(positives: Positives, pool: int) -> Ranks:
    """The ranks that a model has for which all items are alike."""
    starts, owner, item = pairs(positives)
    none, all_tied = np.zeros(len(item), np.int64), np.full(len(item), pool)
    return _from_counts(pool, starts, owner, np.zeros(len(item)), none, all_tied, 0.0)


def inverse(positives: Positives, pool: int) -> tuple[list[int], list[list[int]]]:
    """The items of the pool that belong to any query, and for each the queries it belongs to."""
    queries: list[list[int]] = [[] for _ in range(pool)]
    for query, items in enumerate(positives):
        for item in items:
            queries[item].append(query)
    kept = [item for item in range(pool) if queries[item]]
    return kept, [queries[item] for item in kept]


def hit_probability(tied: Integers, positives: Integers, slots: Integers) -> Floats:
    """The chance that ``slots`` items drawn from ``tied`` ones hold one or more of the ``positives``.

    Hypergeometric and exact: one minus the chance that draw after draw misses. Without slots it is 0.
    """
    slots = np.clip(slots, 0, tied)
    miss = np.ones(len(tied))
    for drawn in range(int(slots.max(initial=0))):
        others = np.maximum(tied - positives - drawn, 0) / np.maximum(tied - drawn, 1)
        miss = np.where(drawn < slots, miss * others, miss)
    return 1.0 - miss


def pairs(positives: Positives) -> tuple[Integers, Integers, Integers]:
    """(query, positive) pairs in the order of the queries: where each query's start, queries, positives."""
    counts = np.array([len(items) for items in positives], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(len(counts)), counts)
    item = np.fromiter((item for items in positives for item in items), np.int64, int(starts[-1]))
    return starts, owner, item


def _from_counts(
    pool: int,
    starts: Integers,
    owner: Integers,
    scores: NDArray[np.floating],
    above: Integers,
    tied: Integers,
    tolerance: float,
) -> Ranks:
    best = np.maximum.reduceat(scores, starts[:-1])[owner]
    _, first = np.unique(owner[scores == best], return_index=True)
    place = np.flatnonzero(scores == best)[first]  # of each query's best positive, or the first of equals
    equals = np.add.reduceat((scores >= best - tolerance).astype(np.int64), starts[:-1])
    return Ranks(pool, starts, above, tied, above[place], tied[place], np.minimum(equals, tied[place]))
