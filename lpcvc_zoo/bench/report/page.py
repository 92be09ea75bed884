"""The interactive page: one file that works offline and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report import words
from lpcvc_zoo.bench.report.curves import AXES, Axis, curves_svg
from lpcvc_zoo.bench.report.table import cells, columns_of, header, plain
from lpcvc_zoo.bench.report.view import height, models, names, parts, styles
from lpcvc_zoo.bench.row import ResultRow

SCRIPTS = ("format.js", "charts.js", "details.js", "table.js", "main.js")


def page(groups: Sequence[Group], made: str) -> str:
    """The whole page as text. ``made``: when, as shown to the reader."""
    from plotly.offline import get_plotlyjs

    charts = get_plotlyjs()
    script = "(() => {\n'use strict';\n" + "\n".join(map(_read, SCRIPTS)) + "})();\n"
    # Texts of rows come from errors and plugins. Nothing of them is ever parsed as HTML; should that fail
    # one day, the browser still refuses every script that is not one of these two, and all of the network.
    policy = (
        f"default-src 'none'; script-src {_hash(charts)} {_hash(script)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    filled = {
        "policy": policy,
        "style": _read("page.css"),
        "data": _json(_data(groups, made)),
        "curves": _curves(groups),
        "plotly": charts,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _read("page.html"))


def _curves(groups: Sequence[Group]) -> str:
    """A section with figures, or nothing where no model was scored at several cuts of its text tower."""
    figures = "".join(_figure(axis, pictures) for axis in AXES if (pictures := curves_svg(groups, axis)))
    return f'<section class="charts" id="curves">{figures}</section>' if figures else ""


def _figure(axis: Axis, pictures: Sequence[str]) -> str:
    shown = "".join(
        f'<img alt="{axis.title}; What came out has the same numbers" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'
        for svg in pictures
    )
    return f"<figure><figcaption>{axis.title}</figcaption>{shown}</figure>"


def _data(groups: Sequence[Group], made: str) -> dict[str, Any]:
    """Everything the page's scripts draw from."""
    rows = [row for group in groups for row in group.rows]
    columns = columns_of(rows)
    return {
        "header": header(made),
        "headline": words.headline(groups),
        "families": [
            {"name": family, "colour": look.colour, "symbol": look.symbol}
            for family, look in styles(rows).items()
        ],
        "columns": list(columns),
        "groups": [
            {
                "setting": words.setting(group),
                "metric": group.metric.label,
                "chance": group.chance,
                "budget_ms": group.budget_ms,
                "static": group.static,
                "findings": words.findings(group),
                "caveats": words.caveats(group),
            }
            for group in groups
        ],
        "rows": [
            _row(group, row, name, model)
            | {"group": number, "cells": cells(row, columns), "full": plain(row)}
            for number, group in enumerate(groups)
            for row, name, model in zip(group.rows, names(group.rows), models(group.rows), strict=True)
        ],
    }


def _row(group: Group, row: ResultRow, name: str, model: str) -> dict[str, Any]:
    """What the charts and the table show of a row; None is shown as a dash."""
    recall = group.recall(row)
    profiles = [profile for profile in (row.image, row.text) if profile is not None]
    estimate = group.estimate(row)
    return {
        "name": name,
        "entry": row.entry,
        "model": model,
        "family": row.family,
        "weights": row.weights,
        "trained": row.trained,
        "error": row.error,
        "cost": group.cost(row),
        "parts": parts(row) if group.cost(row) is not None else None,
        "total_ms": row.total_ms,
        "image_ms": row.image_ms,
        "preprocess_ms": row.preprocess_ms,
        "text_ms": row.text_ms,
        "moved_mb": estimate and estimate.moved_mb,
        "dram_mb": estimate and _dram_mb(estimate),
        "moved_on": estimate and estimate.device,
        "height": height(group, row),
        "recall": recall and recall.value,
        "low": recall and recall.low,
        "high": recall and recall.high,
        "params_m": _sum(row.image_params, row.text_params, scale=1e-6),
        "gmacs": _sum(row.image_gmacs, row.text_gmacs),
        "file_mb": _sum(*(profile.file_bytes for profile in profiles), scale=1e-6)
        if group.cost(row)
        else None,
        "memory_mb": max((p.peak_memory_bytes / 1e6 for p in profiles if p.peak_memory_bytes), default=None),
        "parity": min(
            (cosine for cosine in (row.image_parity_cosine, row.text_parity_cosine) if cosine is not None),
            default=None,
        ),
    }


def _dram_mb(row: ResultRow) -> float | None:
    towers = (row.image, row.text)
    return _sum(
        *(tower.traffic.dram_bytes if tower and tower.traffic else None for tower in towers), scale=1e-6
    )


def _sum(*values: float | None, scale: float = 1.0) -> float | None:
    """The sum of both towers; None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) * scale if known and len(known) == len(values) else None


def _json(data: dict[str, Any]) -> str:
    """JSON that can't end the script element it stands in."""
    text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    """NaN and infinities as None: JSON has no word for them, and the page shows both as a dash."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
