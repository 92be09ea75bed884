"""Recall against what is left of a text tower: a curve for each model that was scored at several cuts."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report.view import GRID, INK, SOFT, names, styles
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.retrieval.metrics import Recall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.5, 3.6  # inches
DASHES = ("-", "--", ":", "-.")
MOST_CURVES = MOST_TICKS = 12


@dataclass(frozen=True)
class Axis:
    """One way to cut a text tower: a row's field of that name, and what it counts."""

    field: str
    title: str
    unit: str
    said: str  # of "Recall by ..." with a model's name


AXES = (
    Axis(
        "text_length", "Recall against text length", "text length, tokens", "tokens that {}'s text is cut to"
    ),
    Axis(
        "text_depth", "Recall against text depth", "text depth, layers", "layers that {}'s text tower keeps"
    ),
)


@dataclass(frozen=True)
class Curve:
    """One model's recall at its cuts along an axis, smallest first."""

    axis: Axis
    name: str
    family: str
    points: tuple[tuple[int, Recall], ...]

    @property
    def sentence(self) -> str:
        told = ", ".join(f"{recall.value:.3f} at {cut}" for cut, recall in self.points)
        return f"Recall by {self.axis.said.format(self.name)}: {told}."


def curves(group: Group, axis: Axis) -> list[Curve]:
    """Of every model of which rows differ in that cut alone, in the order of the rows."""
    found: dict[object, dict[int, Recall]] = {}
    firsts: dict[object, ResultRow] = {}
    for row in group.rows:
        cut: int | None = getattr(row, axis.field)
        recall = None if group.static else group.recall(row)
        if recall is not None and cut is not None:
            others = [getattr(row, other.field) for other in AXES if other is not axis]
            key = (row.entry, row.weights, row.precision, row.rewrites, row.image_size, *others)
            found.setdefault(key, {})[cut] = recall
            firsts.setdefault(key, row.model_copy(update={axis.field: None}))
    several = [key for key, points in found.items() if len(points) > 1]
    called = names([firsts[key] for key in several])
    return [
        Curve(axis, name, firsts[key].family, tuple(sorted(found[key].items())))
        for key, name in zip(several, called, strict=True)
    ]


def draw_curves(group: Group, axis: Axis) -> Figure | None:
    """The curves with their 95 % intervals; None where no model has several cuts along the axis."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = curves(group, axis)
    if not found:
        return None
    drawn, hidden = found[:MOST_CURVES], len(found) - MOST_CURVES
    more = f" ({hidden} more in What came out)" if hidden > 0 else ""
    looks = styles(group.rows)
    with rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": SOFT, "text.parse_math": False}):
        figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        drawn_of: Counter[str] = Counter()
        for curve in drawn:
            dash = DASHES[drawn_of[curve.family] % len(DASHES)]  # a family has one colour and one marker
            drawn_of[curve.family] += 1
            cuts = [cut for cut, _ in curve.points]
            values = [recall.value for _, recall in curve.points]
            look = looks[curve.family]
            axes.plot(
                cuts,
                values,
                marker=look.marker,
                ls=dash,
                color=look.colour,
                lw=1.6,
                ms=5,
                label=curve.name,
            )
            low, high = ([getattr(recall, edge) for _, recall in curve.points] for edge in ("low", "high"))
            axes.fill_between(cuts, low, high, color=look.colour, alpha=0.08, lw=0)
        if group.chance is not None:
            axes.axhline(group.chance, color=SOFT, lw=1.1, ls=(0, (4, 3)), label="chance level")
        axes.set_xscale("log", base=2)
        ticks = sorted({cut for curve in drawn for cut, _ in curve.points})
        ticks = ticks[:: 1 + len(ticks) // MOST_TICKS]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"{axis.unit}{more}")
        axes.set_ylabel(group.metric.label)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def curves_svg(groups: Sequence[Group], axis: Axis) -> list[str]:
    """The picture of every group that has one, as SVG text; the same rows give the same text."""
    from matplotlib import rc_context

    made: list[str] = []
    for figure in filter(None, (draw_curves(group, axis) for group in groups)):
        buffer = io.StringIO()
        with rc_context({"svg.hashsalt": "lpcvc_zoo"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        made.append(buffer.getvalue())
    return made
