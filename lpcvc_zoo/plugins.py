"""Entry points of third parties, in one order and each once. Loads none of them."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from lpcvc_zoo.errors import RegistryError


def points(group: str) -> list[EntryPoint]:
    """A group's entry points, sorted by distribution.

    One seen twice (in two folders of sys.path) counts once.
    """
    unique = {(distribution(point), point.name, point.value): point for point in entry_points(group=group)}
    return [unique[key] for key in sorted(unique)]


def points_by_name(group: str, what: str, built_in: Collection[str]) -> dict[str, EntryPoint]:
    """A group's entry points by name; RegistryError where another or a built-in ``what`` has one's name."""
    found: dict[str, EntryPoint] = {}
    for point in points(group):
        if point.name in found or point.name in built_in:
            other = distribution(found[point.name]) if point.name in found else "lpcvc_zoo itself"
            raise RegistryError(
                f"Two {what}s are called {point.name!r}: one of {other}, one of {distribution(point)}. "
                "Uninstall or rename one."
            )
        found[point.name] = point
    return found


def distribution(point: EntryPoint) -> str:
    """The name of the distribution that an entry point came with."""
    return point.dist.name if point.dist is not None else "(unknown distribution)"
