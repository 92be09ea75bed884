"""Which rows may be compared with each other, and which of them nobody beats in both cost and recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import CONTRACTS, TOWERS, Contract, Metric, Tower
from lpcvc_zoo.exporting.precision import FLOAT
from lpcvc_zoo.retrieval.metrics import Recall


@dataclass(frozen=True)
class Comparison:
    """What rows must share before their latency and recall may be compared.

    ``threads`` and ``dataset`` are None where they are unknown. The metric is the contract's. ``dataset`` is
    a name that ``dataset_names`` gave.
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
    """Comparable rows: those of known cost, cheapest first, then the others.

    The cost is the latency, or, where nothing has one, the compiler's static estimate of the MB moved: two
    axes that never share a picture. ``scored`` are all rows that have a recall on this dataset, ``estimated``
    those that have an estimate, of this group and of others.
    """

    comparison: Comparison
    rows: tuple[ResultRow, ...]
    scored: tuple[ResultRow, ...] = ()
    estimated: tuple[ResultRow, ...] = ()

    @property
    def static(self) -> bool:
        """Whether the cost is a compiler's estimate of MB moved, no latency."""
        return not self._any("image_ms", "text_ms") and self._any("image_moved_mb", "text_moved_mb")

    def cost(self, row: ResultRow) -> float | None:
        """Milliseconds, or MB where the group is ``static``."""
        return row.moved_mb if self.static else row.total_ms

    @property
    def measured(self) -> tuple[ResultRow, ...]:
        """The rows of known cost."""
        return tuple(row for row in self.rows if self.cost(row) is not None)

    @property
    def halves(self) -> list[tuple[ResultRow, Tower, float]]:
        """The rows of which one tower alone has a known cost, with that tower and its cost.

        Half a pair was adopted, or the other tower failed.
        """
        field = "moved_mb" if self.static else "ms"
        found: list[tuple[ResultRow, Tower, float]] = []
        for row in self.rows:
            costs = {tower: getattr(row, f"{tower}_{field}") for tower in TOWERS}
            known = [(row, tower, cost) for tower, cost in costs.items() if cost is not None]
            found += known if len(known) == 1 else []
        return found

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
        if self.contract is None or self.contract.device != self.comparison.device or self.static:
            return None
        return self.contract.latency_budget_ms

    @property
    def chance(self) -> float | None:
        """What ranking at random gives on this dataset."""
        known = (recall.chance if (recall := self.recall(row)) else row.chance for row in self.rows)
        return next((chance for chance in known if chance is not None), None)

    def recall(self, row: ResultRow) -> Recall | None:
        """A row's measured recall by this group's metric; None where it was not measured.

        A static estimate has none of its own: it is shown beside what the same model scores elsewhere.
        """
        own = recall_of(row, self.metric)
        if own is not None or not self.static or row.image_sha256 is None:
            return own
        same = (other for other in self.scored if _same_model(other, row))
        return next((recall_of(other, self.metric) for other in same), None)

    def estimate(self, row: ResultRow) -> ResultRow | None:
        """The row that has the static estimate of a row's model: itself, or the first one elsewhere.

        Other rewrites are no other model there, because each target has those that suit it.
        """
        if row.moved_mb is not None:
            return row
        return next((other for other in self.estimated if _same_choice(other, row)), None)

    def _any(self, *fields: str) -> bool:
        return any(getattr(row, field) is not None for row in self.rows for field in fields)

    @cached_property
    def front(self) -> tuple[int, ...]:
        """Places in ``rows`` of the Pareto front, by rising cost.

        Only trained models whose recall was measured take part: an untrained model's recall is chance,
        and a fast model that guesses is no trade-off worth a mark.
        """
        places: list[int] = []
        points: list[tuple[float, float]] = []
        for place, row in enumerate(self.rows):
            recall, cost = self.recall(row), self.cost(row)
            if row.trained and recall is not None and cost is not None:
                places.append(place)
                points.append((cost, recall.value))
        return tuple(places[index] for index in pareto_front(points))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, recall) points that no other point beats, by rising cost.

    A point is beaten by one that is no dearer and recalls no less, and is better in one of the two. So of
    equally cheap points only the best recall stays, of equal recalls only the cheapest; points that agree in
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


def dataset_names(rows: Sequence[ResultRow]) -> list[str | None]:
    """The name of each row's dataset, with its fingerprint's first digits where several have that name.

    A row that was made before rows said which one it was keeps the bare name.
    """
    called = [comparison(row).dataset for row in rows]
    known = {(name, row.dataset_fingerprint) for row, name in zip(rows, called, strict=True)}
    count = Counter(name for name, fingerprint in known if fingerprint is not None)
    return [
        f"{name} ({row.dataset_fingerprint[:8]})" if row.dataset_fingerprint and count[name] > 1 else name
        for row, name in zip(rows, called, strict=True)
    ]


def compare(rows: Iterable[ResultRow]) -> list[Group]:
    """Rows in comparable groups, the one with most scored, then most measured rows first.

    A row that failed before it was measured goes to the first group of its contract, target and device.
    """
    rows = list(rows)
    keys = [
        replace(comparison(row), dataset=name) for row, name in zip(rows, dataset_names(rows), strict=True)
    ]
    found: dict[Comparison, list[ResultRow]] = {}
    unmeasured: list[tuple[ResultRow, Comparison]] = []
    scored: dict[str | None, list[ResultRow]] = {}
    for row, own in zip(rows, keys, strict=True):
        if row.image is None and row.text is None:
            unmeasured.append((row, own))
        else:
            found.setdefault(own, []).append(row)
        if row.scores is not None:
            scored.setdefault(own.dataset, []).append(row)
    ranked = sorted(found, key=lambda key: _rank(key, found[key]))
    for row, own in unmeasured:
        home = next((key for key in ranked if key.place == own.place), own)
        if home not in found:
            ranked.append(home)
        found.setdefault(home, []).append(row)
    estimated = tuple(row for key in ranked for row in found[key] if row.moved_mb is not None)
    return [
        Group(key, tuple(sorted(found[key], key=_by_cost)), tuple(scored.get(key.dataset, ())), estimated)
        for key in ranked
    ]


def _same_model(one: ResultRow, other: ResultRow) -> bool:
    """Whether two rows score alike: the same files, or float exports of the same weights.

    Each of those agreed with the same torch model, whatever was rewritten for its target.
    """
    if (one.image_sha256, one.text_sha256) == (other.image_sha256, other.text_sha256):
        return True
    return one.precision == FLOAT and _same_choice(one, other)


def _same_choice(one: ResultRow, other: ResultRow) -> bool:
    """Whether two rows are one model under one contract in one precision, whatever was rewritten."""
    facts = ("entry", "weights", "contract", "text_length", "text_depth", "image_size", "precision")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def _rank(key: Comparison, rows: Sequence[ResultRow]) -> tuple[int, bool, int, str]:
    static = all(row.total_ms is None for row in rows)  # measurements come before estimates
    return -sum(row.scores is not None for row in rows), static, -len(rows), repr(key)


def _by_cost(row: ResultRow) -> tuple[float, float, str, str]:
    costs = [float("inf") if cost is None else cost for cost in (row.total_ms, row.moved_mb)]
    return costs[0], costs[1], row.entry, row.weights
