"""The right panel: what each model's cost is made of, cheapest on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report.view import GRID, INK, SOFT, Style, milliseconds, names, parts, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 40  # a picture of more can't be read; the page has them all
LABELS = ("image encoder", "preprocessing in the image graph", "text encoder")


def draw_bars(axes: Axes, group: Group, looks: dict[str, Style], left: float) -> None:
    """Draw into ``axes``; their left edge is moved so that the names begin at ``left`` (figure fraction)."""
    rows = group.measured[:MOST_BARS]
    called = dict(zip(map(id, group.rows), names(group.rows), strict=True))
    _frame(axes, group, [called[id(row)] for row in rows])
    _make_room_for_names(axes, left)
    splits = [split for row in rows if (split := parts(row))]
    of = unit(group)
    for place, (row, split) in enumerate(zip(rows, splits, strict=True)):
        _bar(axes, place, split, looks[row.family].colour)
    _make_room_for_numbers(axes, [_numbers(axes, place, split, of) for place, split in enumerate(splits)])


def _bar(axes: Axes, place: int, split: tuple[float, float, float], colour: str) -> None:
    image, preprocessing, text = split
    axes.barh(place, image, color=colour, height=0.66)
    axes.barh(place, preprocessing, left=image, height=0.66, linewidth=0, **_hatched(colour))
    axes.barh(place, text, left=image + preprocessing, color=colour, alpha=0.42, height=0.66, linewidth=0)


def _numbers(axes: Axes, place: int, split: tuple[float, float, float], of: str) -> tuple[float, float]:
    """Write the total and its parts at a bar's end; returns the total and the writing's width in pixels."""
    at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "xytext": (4, 0)}
    at["annotation_clip"] = False  # the scale is chosen only when all widths are known
    total = axes.annotate(
        f"{milliseconds(sum(split))} {of}",
        (sum(split), place),
        fontsize=8.5,
        fontweight="bold",
        color=INK,
        **at,
    )
    sums = " + ".join(milliseconds(part) for part in split if part > 0)
    detail = axes.annotate(f"= {sums}", (1, 0.5), xycoords=total, fontsize=7.5, color=SOFT, **at)
    renderer = _renderer(axes)
    return sum(split), total.get_window_extent(renderer).width + detail.get_window_extent(renderer).width


def _hatched(colour: str) -> dict[str, Any]:
    return {"facecolor": "white", "edgecolor": colour, "hatch": "////////"}


def _frame(axes: Axes, group: Group, called: list[str]) -> None:
    from matplotlib.patches import Patch

    axes.set_yticks(range(len(called)), called, fontsize=8.5)
    axes.set_ylim(len(called) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    hidden = len(group.measured) - MOST_BARS
    if group.static:
        more = f" ({hidden} more are in report.html)" if hidden > 0 else ""
        axes.set_xlabel(f"compiler's static estimate, MB moved{more}")
    else:
        more = f"; {hidden} slower ones are in report.html" if hidden > 0 else ""
        axes.set_xlabel(f"latency, ms (median{more})")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    looks: tuple[dict[str, Any], ...] = ({"color": SOFT}, _hatched(SOFT), {"color": SOFT, "alpha": 0.42})
    kinds = [(look, label) for look, label in zip(looks, LABELS, strict=True)]
    if all(row.preprocess_ms is None for row in group.measured):
        kinds = [kinds[0], kinds[2]]
    axes.legend(
        handles=[Patch(**look, label=label, linewidth=0) for look, label in kinds],
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8.5, borderpad=0.2,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def _make_room_for_names(axes: Axes, left: float) -> None:
    """Move the left edge by what the names take; very long ones get half of the panel, in smaller letters."""
    renderer = _renderer(axes)
    labels = axes.get_yticklabels()
    widest = max(label.get_window_extent(renderer).width for label in labels)
    place = axes.get_position()
    wanted, most = widest / _figure(axes).bbox.width + 0.006, (place.x1 - left) / 2
    room = min(wanted, most)
    for label in labels:
        label.set_fontsize(label.get_fontsize() * room / wanted)
    axes.set_position((left + room, place.y0, place.x1 - left - room, place.height))


def _make_room_for_numbers(axes: Axes, ends: Sequence[tuple[float, float]]) -> None:
    """Choose the scale so that the writing at every bar's end stays inside the panel."""
    width = axes.bbox.width
    air = 0.06 * width
    longest = max(total * width / max(width - writing - air, width / 4) for total, writing in ends)
    axes.set_xlim(0, longest or 1.0)


def _figure(axes: Axes) -> Any:
    return axes.get_figure(root=True)


def _renderer(axes: Axes) -> Any:
    return _figure(axes).canvas.get_renderer()
