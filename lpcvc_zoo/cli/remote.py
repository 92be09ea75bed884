"""``devices`` and ``doctor``: what there is to measure on, and what is missing for it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from lpcvc_zoo.cli.shared import AsJson, out, print_json, print_table, table

MARKS = {"ok": "[green]ok[/green]", "missing": "[yellow]missing[/yellow]", "bad": "[red]bad[/red]"}


def devices(
    query: Annotated[
        str | None, typer.Argument(help="A name, chipset, attribute (format:phone) or all-phones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of Qualcomm AI Hub."""
    from lpcvc_zoo.targets.aihub import find_devices, open_service

    found = open_service().devices()
    if query is not None:
        found = find_devices(query, found)
    if as_json:
        print_json([device.model_dump(mode="json") for device in found])
        return
    shown = table("device", "system", "chipset", "NPU", "fp16", "frameworks")
    for device in found:
        shown.add_row(
            escape(device.name),
            device.os,
            ", ".join(device.values("chipset")) or "-",
            ", ".join(device.values("hexagon")) or "-",
            "yes" if device.fp16 else "no",
            ", ".join(device.values("framework")) or "-",
        )
    print_table(shown)
    out.print(f"{len(found)} devices.", style="dim")


def doctor(as_json: AsJson = False) -> None:
    """Say what works here, what is missing, and how to fix it. The token is never shown."""
    from lpcvc_zoo.cli.checks import all_checks

    checks = all_checks()
    if as_json:
        print_json([check.model_dump(mode="json") for check in checks])
    else:
        shown = table("", "what", "found")
        for check in checks:
            fix = f"\n-> {check.fix}" if check.fix else ""
            shown.add_row(MARKS[check.state], check.what, escape(f"{check.found}{fix}"))
        print_table(shown)
    raise typer.Exit(int(any(check.state == "bad" for check in checks)))
