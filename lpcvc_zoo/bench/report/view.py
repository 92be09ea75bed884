"""What the picture and the page share: names, colours, and where a row stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.exporting.rewrites import NPU, resolve

# Distinct for colour-blind eyes (Okabe and Ito's set, its pale ones darkened) and visible on white and on
# near-black. Markers differ too; 7 colours and 8 markers make 56 families before a pair comes again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#C98500", "#3D9BCB", "#7F7F7F")
INK, SOFT, GRID, ALARM = "#1b1f24", "#57606a", "#e4e7eb", "#B3261E"  # of the picture, on white
MARKERS = (
    ("o", "circle"), ("s", "square"), ("D", "diamond"), ("^", "triangle-up"),
    ("v", "triangle-down"), ("p", "pentagon"), ("h", "hexagon"), ("P", "cross"),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a family is drawn: colour, and marker by matplotlib's and by plotly's name."""

    colour: str
    marker: str
    symbol: str


def styles(rows: Iterable[ResultRow]) -> dict[str, Style]:
    """A style for each family, by the family's place in the alphabet."""
    families = sorted({row.family for row in rows})
    return {
        family: Style(COLOURS[place % len(COLOURS)], *MARKERS[place % len(MARKERS)])
        for place, family in enumerate(families)
    }


def names(rows: Sequence[ResultRow]) -> list[str]:
    """A name for each row, short but different: what tells two rows apart is added only where it must be."""
    npu = resolve(NPU)
    return told_apart(
        [model_name(row) for row in rows],
        [row.precision for row in rows],
        [f"{row.text_length} tokens" if row.text_length else "" for row in rows],
        [f"text depth {row.text_depth}" if row.text_depth else "" for row in rows],
        [f"{row.image_size} px" if row.image_size else "" for row in rows],
        [NPU if row.rewrites == npu else "+".join(row.rewrites) for row in rows],
        [row.target for row in rows],
        [row.device for row in rows],
        [row.contract for row in rows],
        [f"weights {row.weights.partition('@')[2][:8]}" if "@" in row.weights else "" for row in rows],
        [f"files {_files(row)}" if _files(row) else "" for row in rows],
    )


def told_apart(names: Sequence[str], *details: Sequence[str]) -> list[str]:
    """The names, and for those that are the same the first details, each one a name, in which they differ."""
    found = list(names)
    for detail in details:
        count = Counter(found)
        for name in [name for name, times in count.items() if times > 1]:
            places = [place for place, other in enumerate(found) if other == name]
            if len({detail[place] for place in places}) > 1:
                for place in places:
                    found[place] = ", ".join(filter(None, (name, detail[place])))
    return found


def model_name(row: ResultRow) -> str:
    """Entry and tag, and the precision where it is not float."""
    return row.model if row.precision == "float" else f"{row.model}, {row.precision}"


def _files(row: ResultRow) -> str:
    return "+".join(sha256[:8] for sha256 in (row.image_sha256, row.text_sha256) if sha256)


def models(rows: Sequence[ResultRow]) -> list[str]:
    """For each row of a group what those share that are one model in several precisions, and no others.

    Where a model was rewritten in several ways in one precision, each way is another model.
    """
    facts = ("entry", "weights", "text_length", "text_depth", "image_size")
    found = [" ".join(str(getattr(row, fact)) for fact in facts) for row in rows]
    count = Counter((name, row.precision) for name, row in zip(found, rows, strict=True))
    several = {name for (name, _), times in count.items() if times > 1}
    return [
        " ".join((name, *row.rewrites)) if name in several else name
        for name, row in zip(found, rows, strict=True)
    ]


def same_but_precision(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Rows of one group that are one model in several precisions."""
    found: dict[str, list[ResultRow]] = {}
    for row, model in zip(rows, models(rows), strict=True):
        found.setdefault(model, []).append(row)
    return [same for same in found.values() if len({row.precision for row in same}) > 1]


def height(group: Group, row: ResultRow) -> float | None:
    """A row's recall in the picture: measured, or chance for an untrained model; None for neither."""
    recall = group.recall(row)
    if recall is not None:
        return recall.value
    return None if row.trained else group.chance


def parts(row: ResultRow) -> tuple[float, float, float] | None:
    """A row's cost as (image encoder alone, in-graph preprocessing, text encoder); their sum is the total.

    In milliseconds; in MB moved where there is only a compiler's estimate. The preprocessing is 0 where it
    was not measured by itself: it is then inside the first part. Measured by itself it may, by noise, exceed
    the whole image tower; then it is cut to that.
    """
    if row.image_ms is None or row.text_ms is None:
        if row.image_moved_mb is None or row.text_moved_mb is None:
            return None
        return row.image_moved_mb, 0.0, row.text_moved_mb
    preprocessing = min(row.preprocess_ms or 0.0, row.image_ms)
    return row.image_ms - preprocessing, preprocessing, row.text_ms


def unit(group: Group) -> str:
    """Of a group's costs."""
    return "MB" if group.static else "ms"


def milliseconds(value: float) -> str:
    """Short, with two or three digits that matter: 0.42, 5.6, 124. For MB too."""
    if value < 0.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
