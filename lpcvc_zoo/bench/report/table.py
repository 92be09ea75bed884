"""Every row in full, for spreadsheets (CSV, units in the headers) and for programs (JSON)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lpcvc_zoo
from lpcvc_zoo.bench.pareto import comparison, metric_of, recall_of
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.retrieval.metrics import Recall
from lpcvc_zoo.targets.base import Profile

SCHEMA = "lpcvc_zoo.results/1"

# The compiler's static estimate, in the fields' own units.
TRAFFIC = (
    "dram_read_bytes", "dram_write_bytes", "vtcm_read_bytes", "vtcm_write_bytes", "spill_bytes", "ops",
    "dma_ops",
)  # fmt: skip

Columns = dict[str, Callable[[ResultRow], Any]]


def csv_text(rows: Sequence[ResultRow]) -> str:
    """One line a row below a line of headers. What was not measured is an empty cell, never 0."""
    columns = columns_of(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(cells(row, columns) for row in rows)
    return text.getvalue()


def json_text(rows: Sequence[ResultRow], made: str) -> str:
    """The full rows, each as ``ResultRow.model_validate`` takes it, below a header that names the format."""
    return json.dumps(header(made) | {"rows": [plain(row) for row in rows]}, indent=1, ensure_ascii=False)


def header(made: str) -> dict[str, str]:
    return {"schema": SCHEMA, "generated": made, "lpcvc_zoo": lpcvc_zoo.__version__}


def plain(row: ResultRow) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(row.model_dump_json(round_trip=True))
    return facts


def cells(row: ResultRow, columns: Columns) -> list[str]:
    return [_text(value(row)) for value in columns.values()]


def columns_of(rows: Sequence[ResultRow]) -> Columns:
    """Header to value, in order. Only the recalls at the end depend on which ones the rows have."""
    columns: Columns = {
        "entry": lambda row: row.entry,
        "family": lambda row: row.family,
        "weights": lambda row: row.weights,
        "trained": lambda row: row.trained,
        "contract": lambda row: row.contract,
        "target": lambda row: row.target,
        "device": lambda row: row.device,
        "threads": lambda row: comparison(row).threads,
        "precision": lambda row: row.precision,
        "rewrites": lambda row: row.rewrites,
        "total_latency_median_ms": lambda row: row.total_ms,
        "image_latency_median_ms": lambda row: row.image_ms,
        "preprocess_ms": lambda row: row.preprocess_ms,
        "text_latency_median_ms": lambda row: row.text_ms,
        "static_moved_mb": lambda row: row.moved_mb,
        "dataset": lambda row: comparison(row).dataset,
        "dataset_fingerprint": lambda row: row.dataset_fingerprint,
        "dataset_images": lambda row: row.scores and row.scores.images,
        "dataset_texts": lambda row: row.scores and row.scores.texts,
        "recall_definition": lambda row: metric_of(row.contract).label + ", image to text",
        "recall": lambda row: _own_recall(row, "value"),
        "recall_low_95": lambda row: _own_recall(row, "low"),
        "recall_high_95": lambda row: _own_recall(row, "high"),
        "recall_by_chance": lambda row: _own_recall(row, "chance") if row.scores else row.chance,
        "median_rank_image_to_text": lambda row: row.scores and row.scores.median_rank_image_to_text,
        "median_rank_text_to_image": lambda row: row.scores and row.scores.median_rank_text_to_image,
        "error": lambda row: row.error,
        "image_params_m": lambda row: _millions(row.image_params),
        "text_params_m": lambda row: _millions(row.text_params),
        "image_gmacs": lambda row: row.image_gmacs,
        "text_gmacs": lambda row: row.text_gmacs,
        "image_size_px": lambda row: row.image_size,
        "text_length_tokens": lambda row: row.text_length,
        "text_depth_layers": lambda row: row.text_depth,
        "embedding_size": lambda row: row.embed_dim,
    }
    for tower in TOWERS:
        columns |= _tower_columns(tower)
    columns |= {
        "jobs": lambda row: [job.url for job in row.jobs] or None,
        "versions": lambda row: row.versions,
        "created_utc": lambda row: row.created,
        "key": lambda row: row.key,
    }
    return columns | _recall_columns(rows)


def _tower_columns(tower: Tower) -> Columns:
    def of(field: str) -> Callable[[ResultRow], Any]:
        return lambda row: getattr(row, f"{tower}_{field}")

    def profiled(value: Callable[[Profile], Any]) -> Callable[[ResultRow], Any]:
        def get(row: ResultRow) -> Any:
            profile = row.image if tower == "image" else row.text
            return None if profile is None else value(profile)

        return get

    return {
        f"{tower}_latency_p10_ms": profiled(lambda profile: profile.latency and profile.latency.p10_ms),
        f"{tower}_latency_p90_ms": profiled(lambda profile: profile.latency and profile.latency.p90_ms),
        f"{tower}_iterations": profiled(
            lambda profile: profile.latency and len(profile.latency.iterations_ms)
        ),
        f"{tower}_warmup_iterations": profiled(
            lambda profile: profile.latency and profile.latency.warmup_iterations
        ),
        f"{tower}_load_ms": profiled(lambda profile: profile.load_ms),
        f"{tower}_peak_memory_bytes": profiled(lambda profile: profile.peak_memory_bytes),
        f"{tower}_peak_memory_range_bytes": profiled(lambda profile: profile.peak_memory_range_bytes),
        f"{tower}_layers_by_unit": profiled(lambda profile: profile.layers_by_unit),
        f"{tower}_file_bytes": profiled(lambda profile: profile.file_bytes),
        **{f"{tower}_static_{name}": profiled(partial(_traffic, name=name)) for name in TRAFFIC},
        f"{tower}_parity_cosine": of("parity_cosine"),
        f"{tower}_device_min_cosine": lambda row: _device_cosine(row, tower),
        f"{tower}_sha256": of("sha256"),
        f"{tower}_job_id": profiled(lambda profile: profile.job_id),
        f"{tower}_job_url": profiled(lambda profile: profile.job_url),
        f"{tower}_compile_job_id": lambda row: _compile_job(row, tower),
        f"{tower}_runtime_versions": profiled(lambda profile: profile.runtime_versions),
    }


def _device_cosine(row: ResultRow, tower: Tower) -> float | None:
    parity = row.image_device_parity if tower == "image" else row.text_device_parity
    return None if parity is None else parity.min_cosine


def _compile_job(row: ResultRow, tower: Tower) -> str | None:
    return next((job.id for job in row.jobs if (job.kind, job.tower) == ("compile", tower)), None)


def _traffic(profile: Profile, name: str) -> int | None:
    return None if profile.traffic is None else getattr(profile.traffic, name)


def _recall_columns(rows: Sequence[ResultRow]) -> Columns:
    """Every recall that some row has, with its interval; named by k, definition and direction."""

    def of(kind: tuple[str, int, str], field: str) -> Callable[[ResultRow], Any]:
        def get(row: ResultRow) -> Any:
            found = [recall for recall in row.scores.recalls if _kind(recall) == kind] if row.scores else []
            return getattr(found[0], field) if found else None

        return get

    kinds = {_kind(recall) for row in rows if row.scores for recall in row.scores.recalls}
    columns: Columns = {}
    for kind in sorted(kinds):
        direction, k, mode = kind
        name = f"recall_at_{k}_{mode}_{direction}"
        fields = {"": "value", "_low_95": "low", "_high_95": "high"}
        columns |= {name + suffix: of(kind, field) for suffix, field in fields.items()}
    return columns


def _kind(recall: Recall) -> tuple[str, int, str]:
    return recall.direction, recall.k, recall.mode


def _own_recall(row: ResultRow, field: str) -> float | None:
    recall = recall_of(row, metric_of(row.contract))
    return None if recall is None else getattr(recall, field)


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {version}" for name, version in sorted(value.items()))
    if isinstance(value, (tuple, list)):
        return "; ".join(str(item) for item in value)
    return str(value)
