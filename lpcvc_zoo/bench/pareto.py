"""Which rows may be compared with each other, and which of them nobody beats in both latency and recall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import CONTRACTS, Contract, Metric
from lpcvc_zoo.retrieval.metrics import Recall


@dataclass(frozen=True)
class Comparison:
    """What rows must share before their latency and recall may be compared.

    ``threads`` and ``dataset`` are None where they are unknown. The metric is the contract's.
    """

    contract: str
    target: str
    device: str
    threads: int | None = None
    dataset: str | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """What is known of a row before anything was measured."""
        return self.contract, self.target, self.device


@dataclass(frozen=True)
class Group:
    """Comparable rows: the measured ones by rising latency, then those without a latency."""

    comparison: Comparison
    rows: tuple[ResultRow, ...]

    @property
    def measured(self) -> tuple[ResultRow, ...]:
        return tuple(row for row in self.rows if row.total_ms is not None)

    @property
    def contract(self) -> Contract | None:
        """None for rows made under a contract that this version does not know."""
        return CONTRACTS.get(self.comparison.contract)

    @property
    def metric(self) -> Metric:
        return metric_of(self.comparison.contract)

    @property
    def budget_ms(self) -> float | None:
        """The budget for one image plus one text, only where it applies: on the contract's own device."""
        if self.contract is None or self.contract.device != self.comparison.device:
            return None
        return self.contract.latency_budget_ms

    @property
    def chance(self) -> float | None:
        """What ranking at random gives on this dataset."""
        known = (recall.chance if (recall := self.recall(row)) else row.chance for row in self.rows)
        return next((chance for chance in known if chance is not None), None)

    def recall(self, row: ResultRow) -> Recall | None:
        """A row's measured recall by this group's metric; None where it was not measured."""
        return recall_of(row, self.metric)

    @cached_property
    def front(self) -> tuple[int, ...]:
        """Places in ``rows`` of the Pareto front, by rising latency.

        Only trained models whose recall was measured take part: an untrained model's recall is chance,
        and a fast model that guesses is no trade-off worth a mark.
        """
        places: list[int] = []
        points: list[tuple[float, float]] = []
        for place, row in enumerate(self.rows):
            recall = self.recall(row)
            if row.trained and recall is not None and row.total_ms is not None:
                places.append(place)
                points.append((row.total_ms, recall.value))
        return tuple(places[index] for index in pareto_front(points))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (latency, recall) points that no other point beats, by rising latency.

    A point is beaten by one that is no slower and recalls no less, and is better in one of the two. So of
    equally fast points only the best recall stays, of equal recalls only the fastest; points that agree in
    both stay together. All numbers must be finite.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def metric_of(contract: str) -> Metric:
    """The metric of a contract; the rules' own where this version does not know the contract."""
    return CONTRACTS[contract].metric if contract in CONTRACTS else Metric()


def recall_of(row: ResultRow, metric: Metric) -> Recall | None:
    """The measured image-to-text recall of a row by ``metric``; None where it was not measured."""
    try:
        return row.scores.recall(metric.k, metric.mode) if row.scores else None
    except KeyError:
        return None


def comparison(row: ResultRow) -> Comparison:
    """What a row may be compared under."""
    profile = row.image or row.text
    return Comparison(
        contract=row.contract,
        target=row.target,
        device=row.device,
        threads=profile.threads if profile else None,
        dataset=row.scores.dataset if row.scores else row.dataset,
    )


def compare(rows: Iterable[ResultRow]) -> list[Group]:
    """Rows in comparable groups, the one with most scored, then most measured rows first.

    A row that failed before it was measured goes to the first group of its contract, target and device.
    """
    found: dict[Comparison, list[ResultRow]] = {}
    unmeasured: list[ResultRow] = []
    for row in rows:
        if row.total_ms is None:
            unmeasured.append(row)
        else:
            found.setdefault(comparison(row), []).append(row)
    ranked = sorted(found, key=lambda key: _rank(key, found[key]))
    for row in unmeasured:
        own = comparison(row)
        home = next((key for key in ranked if key.place == own.place), own)
        if home not in found:
            ranked.append(home)
        found.setdefault(home, []).append(row)
    return [Group(key, tuple(sorted(found[key], key=_by_latency))) for key in ranked]


def _rank(key: Comparison, rows: Sequence[ResultRow]) -> tuple[int, int, str]:
    return -sum(row.scores is not None for row in rows), -len(rows), repr(key)


def _by_latency(row: ResultRow) -> tuple[float, str, str]:
    return (float("inf") if row.total_ms is None else row.total_ms), row.entry, row.weights
