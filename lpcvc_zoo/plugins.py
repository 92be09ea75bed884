"""Entry points of third parties, in one order and each once. Loads none of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path

from lpcvc_zoo.errors import RegistryError

logger = logging.getLogger(__name__)
_told: set[str] = set()


def points(group: str) -> list[EntryPoint]:
    """A group's entry points, sorted by distribution.

    One seen twice (in two folders of sys.path) counts once. A distribution whose entry points can't be read
    is left out, and logged once.
    """
    try:
        found = list(entry_points(group=group))
    except Exception:  # of one distribution's bad line, and it does not say whose
        found = list(_readable(group))
    unique = {(distribution(point), point.name, point.value): point for point in found}
    return [unique[key] for key in sorted(unique)]


def names_in(group: str) -> set[str]:
    """The names that a group's entry points have."""
    return {point.name for point in points(group)}


def point_named(group: str, what: str, name: str, built_in: Collection[str]) -> EntryPoint | None:
    """A group's entry point of that name, None where there is none.

    RegistryError where another or a built-in ``what`` has the name too.
    """
    found = [point for point in points(group) if point.name == name]
    owners = ["lpcvc_zoo itself"] if name in built_in else []
    owners += [distribution(point) for point in found]
    if found and len(owners) > 1:
        raise RegistryError(
            f"Two {what}s are called {name!r}: one of {owners[0]}, one of {owners[1]}. "
            "Uninstall or rename one."
        )
    return found[0] if found else None


def distribution(point: EntryPoint) -> str:
    """The name of the distribution that an entry point came with."""
    return _name(point.dist) if point.dist is not None else "(unknown distribution)"


def _readable(group: str) -> Iterator[EntryPoint]:
    seen: set[str] = set()
    for dist in distributions():
        name = _name(dist)
        if name in seen:  # the first on sys.path is the one that is imported
            continue
        seen.add(name)
        try:
            yield from dist.entry_points.select(group=group)
        except Exception as error:  # whatever its file holds
            if name not in _told:
                _told.add(name)
                logger.warning("The entry points of %s can't be read: %s", name, error)


def _name(dist: Distribution) -> str:
    try:
        name: str | None = dist.metadata["Name"]
    except Exception:  # none, in some versions of Python
        name = None
    # Without METADATA its folder's name is all there is.
    return name or Path(str(getattr(dist, "_path", "(unknown distribution)"))).name
