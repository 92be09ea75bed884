"""How far a mean over queries can be trusted, and whether one model's lead over another's is luck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import ContractError

RESAMPLES = 10_000
_DRAWN = 1 << 22  # numbers held at once

Values = NDArray[np.floating]


class Comparison(BaseModel):
    """Model A less model B on the same queries: the difference of their means and its 95 % interval.

    ``wins`` is the fraction of resamples in which A beats B (a draw is no win, so two equal models have 0).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: float
    low: float
    high: float
    wins: float


def interval(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean of one value per query, ``[Q]``.

    Queries are drawn with replacement, each by itself: texts of one image count as independent, which
    makes text-to-image intervals a little too narrow. The same values and seed give the same interval.
    """
    low, high = np.percentile(_means(values, resamples, seed), [2.5, 97.5])
    return float(low), float(high)


def paired_bootstrap(a: Values, b: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare two models by their values on the same queries in the same order, both ``[Q]``.

    The values of a model: ``ranks.rank(images, texts, dataset.positives).recall(k, mode)``.

    Each resample draws queries and takes both models' values of them, so that what makes a query hard for
    both cancels out. ContractError unless both hold one number per query.
    """
    if a.ndim != 1 or a.shape != b.shape:
        got = f"{list(a.shape)} and {list(b.shape)}"
        raise ContractError("values", "one per query, for the same queries of both", got)
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    means = _means(differences, resamples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return Comparison(
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        wins=float((means > 0).mean()),
    )


def _means(values: Values, resamples: int, seed: int) -> NDArray[np.float64]:
    if values.ndim != 1 or not values.size:
        raise ContractError("values", "one per query, one query or more", f"an array {list(values.shape)}")
    # Drawing queries is drawing how often each distinct value comes up, and there are few of those.
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    random = np.random.default_rng(seed)
    step = max(1, _DRAWN // len(distinct))
    parts = [
        random.multinomial(values.size, counts / values.size, min(step, resamples - begin)) @ distinct
        for begin in range(0, resamples, step)
    ]
    return np.concatenate(parts) / values.size
