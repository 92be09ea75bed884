"""The left panel: recall with its interval against cost, the front, the budget and the chance level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report.labels import Box, Label, place, spread
from lpcvc_zoo.bench.report.view import ALARM, GRID, INK, SOFT, Style, height, names, same_but_precision
from lpcvc_zoo.retrieval.metrics import Recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

MARKER_PX = 7.0  # half a marker with some air, at the picture's resolution
STEM_PX = 62.0  # from the chance line up to the names
FAR_PX = 12.0  # a label further than this from its point gets a line to it
SMALL = 8.5  # font size of labels
FAR_STEPS, NEAR_STEPS = 9, 3  # the front must be named, the others only where there is room
FIXED = "fixed"  # marks texts that labels must keep clear of


@dataclass(frozen=True)
class Mark:
    """One model on the panel, at cost ``x`` and recall ``y``; ``recall`` is None where y is only chance."""

    name: str
    x: float
    y: float
    recall: Recall | None
    trained: bool
    best: bool  # on the Pareto front
    look: Style


def draw_scatter(axes: Axes, group: Group, looks: dict[str, Style]) -> None:
    """Draw into ``axes``, whose place on the figure must be final: labels are placed to the pixel."""
    marks = _marks(group, looks)
    scored = any(mark.recall for mark in marks)
    _frame(axes, group, marks, scored)
    _references(axes, group, scored)
    best = [mark for mark in marks if mark.best]
    axes.plot([mark.x for mark in best], [mark.y for mark in best], drawstyle="steps-post", color=INK, lw=1.2)
    _join_precisions(axes, group, looks)
    for mark in marks:
        _draw(axes, mark)
    if scored:
        _label_trained(axes, group, marks)
    elif marks:
        _label_all(axes, marks)
        axes.text(
            0.5, 0.86, "No trained weights were measured here,\nso there is no recall to compare yet.",
            transform=axes.transAxes, ha="center", va="center", color=SOFT, linespacing=1.5, gid=FIXED,
        )  # fmt: skip


def _marks(group: Group, looks: dict[str, Style]) -> list[Mark]:
    marks = []
    for index, (row, name) in enumerate(zip(group.rows, names(group.rows), strict=True)):
        x, y = group.cost(row), height(group, row)
        if x is not None and y is not None:
            mark = Mark(
                name, x, y, group.recall(row), row.trained, index in group.front, looks[row.family]
            )  # fmt: skip
            marks.append(mark)
    return marks


def _frame(axes: Axes, group: Group, marks: Sequence[Mark], scored: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    times = [mark.x for mark in marks if mark.x > 0] + ([group.budget_ms] if group.budget_ms else [])
    axes.set_xscale("log")
    if times:
        axes.set_xlim(min(times) / 1.35, max(times) * 1.35)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    what = "compiler's static estimate, MB moved" if group.static else "image + text latency, ms (median"
    axes.set_xlabel(what + (" (log scale)" if group.static else ", log scale)"))
    highest = max((mark.recall.high for mark in marks if mark.recall), default=1.0)
    top = min(1.0, highest * 1.12) or 1.0
    axes.set_ylim(-0.06 * top, top)  # the air below 0 is for the words under the chance line
    axes.set_ylabel(group.metric.label + (", 95 % interval" if scored else ""))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _references(axes: Axes, group: Group, scored: bool) -> None:
    """The budget and the chance level, each a dashed line that says what it is."""
    if group.budget_ms is not None:
        axes.axvline(group.budget_ms, color=ALARM, linewidth=1.2, linestyle=(0, (6, 3)))
        low, high = axes.get_xlim()
        right = group.budget_ms**2 > low * high  # in the right half, so the words go to its left
        axes.annotate(
            f"budget {group.budget_ms:g} ms", (group.budget_ms, 1), xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -4), textcoords="offset points", ha="right" if right else "left",
            va="top", color=ALARM, fontsize=SMALL, gid=FIXED,
        )  # fmt: skip
    if group.chance is not None:
        axes.axhline(group.chance, color=SOFT, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            f"chance level {group.chance:.3f}" + ("" if scored else ": computed, not measured"),
            (1, group.chance), xycoords=("axes fraction", "data"), xytext=(0, -8), textcoords="offset points",
            ha="right", va="top", color=SOFT, fontsize=SMALL, gid=FIXED,
        )  # fmt: skip


def _join_precisions(axes: Axes, group: Group, looks: dict[str, Style]) -> None:
    """A thin line through the points of one model in its several precisions."""
    for rows in same_but_precision(group.rows):
        points = [
            (x, y)
            for row in rows
            if (x := group.cost(row)) is not None and (y := height(group, row)) is not None
        ]
        if len(points) > 1:
            xs, ys = zip(*sorted(points), strict=True)
            colour = looks[rows[0].family].colour
            axes.plot(xs, ys, color=colour, lw=1.6, alpha=0.6, zorder=2, gid="precisions")


def _draw(axes: Axes, mark: Mark) -> None:
    colour = mark.look.colour
    if mark.recall is not None:
        axes.vlines(mark.x, mark.recall.low, mark.recall.high, color=colour, linewidth=1, alpha=0.55)
    axes.plot(
        mark.x, mark.y, linestyle="", marker=mark.look.marker, markersize=7, mew=1.4, clip_on=False,
        color=colour, markerfacecolor=colour if mark.trained else "white", zorder=3 if mark.trained else 2.5,
    )  # fmt: skip


def _label_trained(axes: Axes, group: Group, marks: Sequence[Mark]) -> None:
    """Names beside the points: the front's first, the other trained models' where there is room."""
    chosen = sorted((mark for mark in marks if mark.trained), key=lambda mark: not mark.best)
    texts = [_text(axes, mark.name, bold=mark.best, color=INK if mark.best else SOFT) for mark in chosen]
    labels = [
        Label(*_pixel(axes, mark.x, mark.y), *_size(text), FAR_STEPS if mark.best else NEAR_STEPS, mark.best)
        for mark, text in zip(chosen, texts, strict=True)
    ]
    points = [_pixel(axes, mark.x, mark.y) for mark in marks]
    forbidden = [Box(x - MARKER_PX, y - MARKER_PX, x + MARKER_PX, y + MARKER_PX) for x, y in points]
    forbidden += [_extent(text) for text in axes.texts if text.get_gid() == FIXED]
    boxes = place(labels, _box(axes.bbox), points, forbidden, _lines(axes, group, marks))
    for label, text, box in zip(labels, texts, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        _put(axes, text, box)
        if box.distance(label.x, label.y) > FAR_PX:
            end = (min(max(label.x, box.left), box.right), min(max(label.y, box.bottom), box.top))
            _segment(axes, (label.x, label.y), end)


def _label_all(axes: Axes, marks: Sequence[Mark]) -> None:
    """Where all points lie on the chance line: every name upright above its point, moved aside to fit."""
    texts = [_text(axes, mark.name, rotation=90, color=INK) for mark in marks]
    points = [_pixel(axes, mark.x, mark.y) for mark in marks]
    width = max(_size(text)[0] for text in texts)
    room = _box(axes.bbox)
    if width * len(texts) > room.right - room.left:  # too many; the bars name them all
        for text in texts:
            text.remove()
        return
    middles = spread([x for x, _ in points], width * 1.25, room.left + width / 2, room.right - width / 2)
    bottom = max(y for _, y in points) + STEM_PX
    for text, middle, (x, y) in zip(texts, middles, points, strict=True):
        _put(axes, text, Box(middle - width / 2, bottom, middle + width / 2, bottom + _size(text)[1]))
        _segment(axes, (x, y + MARKER_PX), (middle, bottom - 4))


def _lines(axes: Axes, group: Group, marks: Sequence[Mark]) -> list[Box]:
    """Thin boxes along the intervals, the steps of the front and the two reference lines."""
    room = _box(axes.bbox)
    boxes = []
    for mark in marks:
        if mark.recall is not None:
            x, low = _pixel(axes, mark.x, mark.recall.low)
            boxes.append(Box(x - 1, low, x + 1, _pixel(axes, mark.x, mark.recall.high)[1]))
    for one, other in pairwise(mark for mark in marks if mark.best):
        (left, bottom), (right, top) = _pixel(axes, one.x, one.y), _pixel(axes, other.x, other.y)
        boxes += [Box(left, bottom - 1, right, bottom + 1), Box(right - 1, bottom, right + 1, top)]
    if group.budget_ms is not None:
        x, _ = _pixel(axes, group.budget_ms, 0)
        boxes.append(Box(x - 1, room.bottom, x + 1, room.top))
    if group.chance is not None:
        _, y = _pixel(axes, 1.0, group.chance)
        boxes.append(Box(room.left, y - 1, room.right, y + 1))
    return boxes


def _text(axes: Axes, name: str, *, color: str, bold: bool = False, rotation: int = 0) -> Text:
    from matplotlib.patheffects import withStroke

    return axes.text(
        0.5, 0.5, name, fontsize=SMALL, fontweight="bold" if bold else "normal", color=color, gid="name",
        rotation=rotation, ha="center", va="center", zorder=4, transform=axes.transAxes,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )  # fmt: skip


def _put(axes: Axes, text: Text, box: Box) -> None:
    """Move a text's middle to a box's, kept as a fraction of the axes so that it holds at any resolution."""
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    x, y = axes.transAxes.inverted().transform(middle)
    text.set_position((x, y))


def _segment(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    (x0, y0), (x1, y1) = axes.transAxes.inverted().transform([start, end])
    axes.plot([x0, x1], [y0, y1], transform=axes.transAxes, color=SOFT, lw=0.6, alpha=0.7, zorder=1.6)


def _pixel(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _size(text: Text) -> tuple[float, float]:
    box = _extent(text)
    return box.right - box.left, box.top - box.bottom


def _extent(text: Any) -> Box:
    return _box(text.get_window_extent(text.get_figure(root=True).canvas.get_renderer()))


def _box(bounds: Any) -> Box:
    return Box(*(float(edge) for edge in bounds.extents))
