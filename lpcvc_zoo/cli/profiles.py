"""Profiles of both towers as tables: what was measured, or what a compiler says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from lpcvc_zoo.cli.shared import number, out, print_table, table
from lpcvc_zoo.targets.base import FP16

if TYPE_CHECKING:
    from lpcvc_zoo.targets.base import Profile


MOST = 12  # operators or layers of a tower; --json has all


def print_profiles(profiles: Mapping[Any, Profile], operators: bool) -> None:
    """What is known of both towers, and with ``operators`` the dearest of their parts."""
    first = next(iter(profiles.values()))
    estimated = any(measured.traffic is not None for measured in profiles.values())
    if estimated:
        shown = table(
            "tower",
            ">binary MB",
            ">VTCM MB",
            ">DRAM MB read",
            ">written",
            ">spilled",
            ">ops",
            ">DMA",
        )
        for tower, measured in profiles.items():
            shown.add_row(tower, *_moved(measured))
    else:
        shown = table("tower", "median ms", "p10 to p90", "runs", "load ms", "peak MB", "file MB")
        for tower, measured in profiles.items():
            shown.add_row(tower, *_measured(measured))
    print_table(shown)
    facts = [first.device, *([f"{first.threads} threads"] if first.threads is not None else [])]
    facts += [f"{tool} {version}" for tool, version in first.runtime_versions.items()]
    out.print(", ".join(facts), style="dim", highlight=False)
    for measured in profiles.values():
        if measured.job_url is not None:
            units = ", ".join(f"{count} {unit}" for unit, count in (measured.layers_by_unit or {}).items())
            out.print(f"{measured.job_url}  layers: {units}", style="dim", highlight=False, soft_wrap=True)
    if estimated:
        out.print("The compiler's static estimate: nothing ran, and no time follows from it.", style="dim")
    if operators:
        (_print_layers if estimated else _print_operators)(profiles)


def _measured(measured: Profile) -> list[str]:
    latency = measured.latency
    return [
        number(latency.median_ms if latency else None, 2),
        f"{latency.p10_ms:.2f} to {latency.p90_ms:.2f}" if latency else "-",
        str(len(latency.iterations_ms)) if latency else "-",
        number(measured.load_ms, 0),
        number(measured.peak_memory_bytes and measured.peak_memory_bytes / 1e6, 0),
        number(measured.file_bytes and measured.file_bytes / 1e6, 1),
    ]


def _print_operators(profiles: Mapping[Any, Profile]) -> None:
    shown = table("tower", "ms", "operator", "node")
    for tower, measured in profiles.items():
        timed = sorted(measured.operators or (), key=lambda item: item.time_ms or 0.0, reverse=True)
        for operator in timed[:MOST]:
            shown.add_row(tower, number(operator.time_ms, 3), operator.type, escape(operator.name))
    print_table(shown)


def _moved(measured: Profile) -> list[str]:
    traffic = measured.traffic
    if traffic is None:
        return [number(measured.file_bytes and measured.file_bytes / 1e6, 1), *["-"] * 6]
    amounts = (
        measured.file_bytes, traffic.vtcm_bytes, traffic.dram_read_bytes, traffic.dram_write_bytes,
        traffic.spill_bytes,
    )  # fmt: skip
    return [
        *(number(None if amount is None else amount / 1e6, 1) for amount in amounts),
        str(traffic.ops),
        str(traffic.dma_ops),
    ]


def _print_layers(profiles: Mapping[Any, Profile]) -> None:
    shown = table("tower", ">VTCM MB", ">DRAM MB", ">operations", "operator", "node")
    for tower, measured in profiles.items():
        layers = (measured.traffic and measured.traffic.layers) or ()
        for layer in sorted(layers, key=lambda layer: -layer.vtcm_read_bytes - layer.vtcm_write_bytes)[:MOST]:
            shown.add_row(
                tower,
                number((layer.vtcm_read_bytes + layer.vtcm_write_bytes) / 1e6, 2),
                number((layer.dram_read_bytes + layer.dram_write_bytes) / 1e6, 2),
                str(layer.ops),
                layer.type or "-",
                escape(layer.name or "(of the compiler's own)"),
            )
    print_table(shown)
    for tower, measured in profiles.items():
        nodes = measured.operators or ()
        left = [escape(f"{node.name} ({node.type})") for node in nodes if node.unit == FP16]
        if nodes:
            said = f"{tower} tower: {len(left)} of {len(nodes)} nodes stay in fp16: {', '.join(left)}"
            out.print(said, style="dim", highlight=False, soft_wrap=True)
