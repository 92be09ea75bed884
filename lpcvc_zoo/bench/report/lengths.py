"""Recall against text length: a curve for each model that was scored at several."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report.view import GRID, INK, SOFT, model_name, styles
from lpcvc_zoo.retrieval.metrics import Recall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Recall against text length"
WIDTH, HEIGHT = 6.5, 3.6  # inches
DASHES = ("-", "--", ":", "-.")
MOST_CURVES = MOST_TICKS = 12


@dataclass(frozen=True)
class Curve:
    """One model's recall at its text lengths in tokens, shortest first."""

    name: str
    family: str
    points: tuple[tuple[int, Recall], ...]

    @property
    def sentence(self) -> str:
        told = ", ".join(f"{recall.value:.3f} at {length}" for length, recall in self.points)
        return f"Recall by tokens that {self.name}'s text is cut to: {told}."


def curves(group: Group) -> list[Curve]:
    """Of every model of which rows differ in the text length alone, in the order of the rows."""
    found: dict[object, list[Curve]] = {}
    for row in group.rows:
        recall = None if group.static else group.recall(row)
        if recall is not None and row.text_length is not None:
            key = (row.entry, row.weights, row.precision, row.rewrites, row.image_size)
            point = Curve(model_name(row), row.family, ((row.text_length, recall),))
            found.setdefault(key, []).append(point)
    joined = [
        Curve(same[0].name, same[0].family, tuple(sorted((one.points[0] for one in same), key=_tokens)))
        for same in found.values()
    ]
    return [curve for curve in joined if len({length for length, _ in curve.points}) > 1]


def draw_lengths(group: Group) -> Figure | None:
    """The curves with their 95 % intervals; None where no model has several lengths."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = curves(group)[:MOST_CURVES]
    if not drawn:
        return None
    looks = styles(group.rows)
    with rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": SOFT, "text.parse_math": False}):
        figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        drawn_of: Counter[str] = Counter()
        for curve in drawn:
            dash = DASHES[drawn_of[curve.family] % len(DASHES)]  # a family has one colour and one marker
            drawn_of[curve.family] += 1
            lengths = [length for length, _ in curve.points]
            values = [recall.value for _, recall in curve.points]
            look = looks[curve.family]
            axes.plot(
                lengths,
                values,
                marker=look.marker,
                ls=dash,
                color=look.colour,
                lw=1.6,
                ms=5,
                label=curve.name,
            )
            low, high = ([getattr(recall, edge) for _, recall in curve.points] for edge in ("low", "high"))
            axes.fill_between(lengths, low, high, color=look.colour, alpha=0.08, lw=0)
        if group.chance is not None:
            axes.axhline(group.chance, color=SOFT, lw=1.1, ls=(0, (4, 3)), label="chance level")
        axes.set_xscale("log", base=2)
        ticks = sorted({length for curve in drawn for length, _ in curve.points})
        ticks = ticks[:: 1 + len(ticks) // MOST_TICKS]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("text length, tokens")
        axes.set_ylabel(group.metric.label)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def lengths_svg(groups: Sequence[Group]) -> list[str]:
    """The picture of every group that has one, as SVG text; the same rows give the same text."""
    from matplotlib import rc_context

    made: list[str] = []
    for figure in filter(None, map(draw_lengths, groups)):
        buffer = io.StringIO()
        with rc_context({"svg.hashsalt": "lpcvc_zoo"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        made.append(buffer.getvalue())
    return made


def _tokens(point: tuple[int, Recall]) -> int:
    return point[0]
