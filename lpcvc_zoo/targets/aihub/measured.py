"""The service's profile as ours: microseconds become milliseconds, and what it does not say stays None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.base import Latency, OperatorTime, Profile

SLOWEST = 20  # layers kept by name; a tower has up to a thousand
UNITS = ("NPU", "GPU", "CPU")


def to_profile(
    raw: Mapping[str, Any], *, target: str, device: str, versions: dict[str, str], job_id: str, url: str
) -> Profile:
    """Read what ``download_profile`` gives. TargetError where it holds no inference time at all.

    Iterations are kept in their order. Where the service gives none, its estimate is the only one. Zero
    stands for "not measured" in the service's messages, so zeros are left out.
    """
    summary = raw.get("execution_summary") or {}
    estimated = _ms(summary.get("estimated_inference_time"))
    iterations = tuple(ms for time in summary.get("all_inference_times") or () if (ms := _ms(time)))
    if not iterations and estimated is None:
        raise TargetError(f"The profile job {job_id} on {device} gave no inference time. See {url}")
    details = raw.get("execution_detail") or []
    layers = [layer for layer in details if isinstance(layer, Mapping)]
    memory = _range(summary.get("inference_memory_peak_range"))
    return Profile(
        target=target,
        device=device,
        runtime_versions=versions,
        latency=Latency(iterations_ms=iterations or (estimated or 0.0,), warmup_iterations=0),
        estimated_ms=estimated,
        load_ms=_ms(summary.get("first_load_time")),
        warm_load_ms=_ms(summary.get("warm_load_time")),
        peak_memory_bytes=memory[1] if memory else _count(summary.get("estimated_inference_peak_memory")),
        peak_memory_range_bytes=memory,
        operators=_slowest(layers) or None,
        layers_by_unit=_units(layers) or None,
        job_id=job_id,
        job_url=url,
    )


def _slowest(layers: list[Mapping[str, Any]]) -> tuple[OperatorTime, ...]:
    times = [
        OperatorTime(
            name=str(layer.get("name", "")),
            type=str(layer.get("type", "")),
            time_ms=_ms(layer.get("execution_time")),
            unit=_unit(layer),
        )
        for layer in layers
    ]
    return tuple(sorted(times, key=lambda item: item.time_ms or 0.0, reverse=True)[:SLOWEST])


def _units(layers: list[Mapping[str, Any]]) -> dict[str, int]:
    counted = Counter(_unit(layer) or "unknown" for layer in layers)
    return {unit: counted[unit] for unit in (*UNITS, "unknown") if counted[unit]}


def _unit(layer: Mapping[str, Any]) -> str | None:
    unit = layer.get("compute_unit")
    return unit if unit in UNITS else None


def _count(value: Any) -> int | None:
    """A positive whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _ms(value: Any) -> float | None:
    microseconds = _count(value)
    return None if microseconds is None else microseconds / 1000


def _range(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return None
    low, high = value
    if _count(high) is None or not isinstance(low, int) or not 0 <= low <= high:
        return None
    return low, high
