"""The picture of a sweep: recall against cost, and beside it what each model's cost is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report import words
from lpcvc_zoo.bench.report.bars import MOST_BARS, draw_bars
from lpcvc_zoo.bench.report.scatter import draw_scatter
from lpcvc_zoo.bench.report.view import INK, SOFT, Style, same_but_precision, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_COLUMNS = 8
MOST_GROUPS = 3  # the others are named below the picture
WIDTH = 13.0  # inches, as everything below
TITLE, LEGEND, SETTING, PANEL_LEGEND, LINE = 0.55, 0.35, 0.34, 0.3, 0.19
BELOW_AXES = 0.58  # tick labels and axis title
MARGIN = 0.3
DPI = 130
SCORED_WIDTH, UNSCORED_WIDTH = 5.75, 4.6  # of the scatter: less of it where there is less to see


def draw(groups: Sequence[Group]) -> Figure:
    """One row of two panels for each of the first comparable groups, sized to their number of models."""
    from matplotlib import rc_context

    shown = [group for group in groups if group.measured][:MOST_GROUPS]
    with rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": SOFT, "text.parse_math": False}):
        return _draw(groups, shown)


def save(figure: Figure, path: Path, kind: Literal["png", "svg"]) -> None:
    """Write the picture; the same rows give the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "lpcvc_zoo"}):
        figure.savefig(path, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)


def _draw(groups: Sequence[Group], shown: Sequence[Group]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    notes = [line for note in _notes(groups, shown) for line in textwrap.wrap(note, 190)]
    heights = [_axes_height(group) for group in shown]
    blocks = sum(SETTING + PANEL_LEGEND + height + BELOW_AXES for height in heights) or 1.5
    looks = styles(row for group in shown for row in group.measured)
    legend = LEGEND * ceil((len(looks) + 2) / LEGEND_COLUMNS)
    total = TITLE + legend + blocks + LINE * len(notes) + MARGIN
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def up(inches_from_top: float) -> float:
        return 1 - inches_from_top / total

    left = MARGIN / WIDTH
    figure.text(left, up(MARGIN), words.headline(groups), fontsize=15, fontweight="bold", va="center")
    if shown:
        _legend(figure, looks, shown, up(TITLE + legend / 2))
    else:
        if any(group.halves for group in groups):
            why = "One tower alone was measured; report.html has its numbers."
        else:
            why = "Run a sweep; this picture is drawn again after every model."
        figure.text(0.5, 0.5, why, ha="center", color=SOFT)
    top = TITLE + legend
    for group, height in zip(shown, heights, strict=True):
        figure.text(left, up(top + SETTING / 2), _short(words.setting(group)), color=SOFT, va="center")
        top += SETTING + PANEL_LEGEND
        _panels(figure, group, looks, up(top), height / total)
        top += height + BELOW_AXES
    for place, note in enumerate(notes):
        y = up(total - MARGIN / 2 - LINE * (len(notes) - place - 0.5))
        figure.text(left, y, note, fontsize=9, color=SOFT, va="center")
    return figure


def _short(text: str) -> str:
    return textwrap.shorten(text, 165, placeholder=" ...")


def _axes_height(group: Group) -> float:
    return max(3.4, 0.8 + 0.255 * min(len(group.measured), MOST_BARS))


def _panels(figure: Figure, group: Group, looks: dict[str, Style], top: float, height: float) -> None:
    """The scatter on the left, if anything has a recall or a chance level; the bars beside it."""
    bars_left = MARGIN
    scored = any(group.recall(row) for row in group.measured)
    if scored or group.chance is not None:
        width = SCORED_WIDTH if scored else UNSCORED_WIDTH
        axes = figure.add_axes((0.75 / WIDTH, top - height, width / WIDTH, height))
        draw_scatter(axes, group, looks)
        bars_left = 0.75 + width + 0.25
    axes = figure.add_axes((bars_left / WIDTH, top - height, (WIDTH - MARGIN - bars_left) / WIDTH, height))
    draw_bars(axes, group, looks, bars_left / WIDTH)


def _legend(figure: Figure, looks: dict[str, Style], shown: Sequence[Group], y: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour, markersize=7, label=family)
        for family, look in looks.items()
    ]
    if any(not row.trained for group in shown for row in group.measured):
        hollow = Line2D([], [], linestyle="", marker="o", color=SOFT, markerfacecolor="white")
        hollow.set_label("hollow: untrained")
        handles.append(hollow)
    if any(group.front for group in shown):
        handles.append(Line2D([], [], color=INK, linewidth=1.2, label="Pareto front"))
    if any(same_but_precision(group.measured) for group in shown):
        handles.append(Line2D([], [], color=SOFT, linewidth=1.6, alpha=0.6, label="one model's precisions"))
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(MARGIN / WIDTH - 0.006, y), ncols=LEGEND_COLUMNS,
        frameon=False, handletextpad=0.3, columnspacing=1.4, borderpad=0,
    )  # fmt: skip


def _notes(groups: Sequence[Group], shown: Sequence[Group]) -> list[str]:
    notes = list(dict.fromkeys(caveat for group in shown for caveat in words.caveats(group)))
    notes += [note for group in groups if group not in shown for note in words.failures(group)]
    others = [group for group in groups if group.measured and group not in shown]
    if others:
        notes.append("Not drawn here, but in report.html: " + "; ".join(map(words.setting, others)) + ".")
    return notes
