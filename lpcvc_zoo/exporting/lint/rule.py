"""What a lint rule is, what it looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.exporting.lint.graph import Graph

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Subject:
    """A graph and what is known about it.

    ``contract`` and ``tower`` are None where nobody said them and the inputs don't tell.
    ``plain_pixels``: this model wants its pixels as the host gives them, so no normalisation is missing.
    ``peaks``: the largest magnitude that each value had on real photos or captions, None where not measured.
    ``htp_arch``: the architecture of the NPU that the file is for, 69 for HTP v69; None for any.
    """

    graph: Graph
    path: Path
    contract: Contract | None = None
    tower: Tower | None = None
    plain_pixels: bool = False
    peaks: Mapping[str, float] | None = None
    htp_arch: int | None = None


@dataclass(frozen=True)
class Hit:
    """One thing that a rule found; ``level`` where it is not the rule's own."""

    message: str
    nodes: tuple[str, ...] = ()
    level: Level | None = None


@dataclass(frozen=True)
class Rule:
    """A hazard, with ``why`` it is one, its ``cure``, and the ``check`` that finds it.

    error: an NPU refuses it or computes something else; warning: it costs time or accuracy; info: a note.
    """

    name: str
    level: Level
    why: str
    cure: str
    check: Callable[[Subject], Iterable[Hit]]
