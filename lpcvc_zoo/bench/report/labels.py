"""Labels that never cover each other: a greedy placement of boxes around points, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot


@dataclass(frozen=True)
class Box:
    """An axis-parallel rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def distance(self, x: float, y: float) -> float:
        """From a point to the nearest place of the box."""
        return hypot(max(self.left - x, 0, x - self.right), max(self.bottom - y, 0, y - self.top))

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True)
class Label:
    """A text of ``width`` x ``height`` for the point (x, y), ``reach`` steps away from it at most.

    One that ``must`` be shown may stand nearer to another point than to its own; it needs a line then.
    """

    x: float
    y: float
    width: float
    height: float
    reach: int
    must: bool = False


def place(
    labels: Sequence[Label],
    within: Box,
    points: Sequence[tuple[float, float]] = (),
    forbidden: Sequence[Box] = (),
    unwanted: Sequence[Box] = (),
    gap: float = 6.0,
) -> list[Box | None]:
    """A box for each label, earlier labels first; None where there is no room.

    Boxes lie ``within`` the frame, meet neither each other nor a ``forbidden`` box (markers), and as few of
    the ``unwanted`` ones (lines) as can be. A reader takes a text to belong to the nearest of all ``points``,
    so that is to be its own. ``gap`` is the distance from the point.
    """
    taken = list(forbidden)
    found: list[Box | None] = []
    for label in labels:
        free = [
            box
            for box in _around(label, gap)
            if within.holds(box) and not any(box.meets(other) for other in taken)
        ]
        clear = [box for box in free if _is_nearest(box, label, points)]
        best = min(
            clear or (free if label.must else []),
            key=lambda box: sum(box.meets(line) for line in unwanted),
            default=None,
        )
        found.append(best)
        if best is not None:
            taken.append(best)
    return found


def _is_nearest(box: Box, label: Label, points: Sequence[tuple[float, float]]) -> bool:
    own = box.distance(label.x, label.y)
    return all(own <= box.distance(x, y) for x, y in points)


def _around(label: Label, gap: float) -> list[Box]:
    """Places around a point, nearest first; upper left comes first, where no better model can be."""
    boxes = []
    for ring in range(label.reach):
        reach = gap + ring * label.height * 0.75
        for across, up in ((-1, 1), (1, -1), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            centre = label.x + across * (reach * (0.5 if up else 1.0) + label.width / 2)
            middle = label.y + up * (reach + label.height / 2)
            boxes.append(
                Box(
                    centre - label.width / 2,
                    middle - label.height / 2,
                    centre + label.width / 2,
                    middle + label.height / 2,
                )
            )
    return boxes


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Positions as near as can be to ``wanted`` (ascending), ``apart`` or more from each other.

    All lie in [low, high]. Neighbours that would touch move as one block around their own middle. Where the
    room is too small they stand at equal distances over the whole of it, closer than ``apart``.
    """
    count = len(wanted)
    if count > 1 and (count - 1) * apart > high - low:
        return [low + (high - low) * index / (count - 1) for index in range(count)]
    blocks: list[tuple[float, int]] = []  # (start, how many)
    sums: list[float] = []  # of what the block's members want its start to be
    for position in wanted:
        total, size = position, 1
        start = _clamped(total, size, apart, low, high)
        while blocks and blocks[-1][0] + blocks[-1][1] * apart > start:
            _, before = blocks.pop()
            total = sums.pop() + total - size * before * apart
            size += before
            start = _clamped(total / size, size, apart, low, high)
        blocks.append((start, size))
        sums.append(total)
    return [start + place * apart for start, size in blocks for place in range(size)]


def _clamped(start: float, size: int, apart: float, low: float, high: float) -> float:
    return max(low, min(start, high - (size - 1) * apart))
