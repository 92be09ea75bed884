"""What the commands share: the console, common options, tables and numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import measure_renderables
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from lpcvc_zoo import registry
from lpcvc_zoo.contract import CONTRACTS
from lpcvc_zoo.errors import UnknownNameError, ZooError
from lpcvc_zoo.exporting.rewrites import REWRITES

out = Console()


def names_from(incomplete: str) -> list[str]:
    return [name for name in registry.list_models() if name.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(help="An entry, such as mobileclip_s0, or entry.tag.", autocompletion=names_from)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
ContractChoice = Annotated[
    str | None,
    typer.Option(
        "--contract",
        help="Form of the inputs. Default: lpcvc2026, or that of a folder or checkpoints.",
        autocompletion=lambda: list(CONTRACTS),
    ),
]
ContractName = Annotated[
    str, typer.Option("--contract", help="Form of the inputs.", autocompletion=lambda: list(CONTRACTS))
]
Weights = Annotated[
    str | None,
    typer.Option("--pretrained", help="A checkpoint: its tag, path, or hf-hub:org/repo. Default: untrained."),
]
ImageSize = Annotated[int | None, typer.Option(help="The image tower's own input size, if not the entry's.")]
TextLength = Annotated[
    int | None, typer.Option(help="Cut the text sequence to this many tokens inside the graph.")
]
TextDepth = Annotated[
    int | None, typer.Option(help="Keep this many of the text transformer's layers, from the first on.")
]
Rewrites = Annotated[
    str,
    typer.Option(
        "--rewrites",
        help=f"none, npu (for Snapdragon), or names with commas between: {', '.join(REWRITES)}.",
    ),
]
Threads = Annotated[int | None, typer.Option(help="Threads of the target; its own choice by default.")]
Device = Annotated[
    str | None,
    typer.Option(help="Where a target has several: a name, chipset or attribute."),
]
Precision = Annotated[str | None, typer.Option(help="float, w8a16, w8a8, or image=w8a16+text=float.")]
Calibration = Annotated[str, typer.Option(help="Dataset to calibrate quantisation on.")]
Runtime = Annotated[
    str | None, typer.Option(help="Of a remote target: qnn_dlc, qnn_context_binary, onnx, tflite, ...")
]
TargetName = Annotated[str, typer.Option("--target", help="Where to measure or run.")]


def check_model(name: str) -> None:
    """ZooError at once for a misspelt name, which should not wait for torch, and for a folder."""
    try:
        registry.get_entry(name)
    except UnknownNameError:
        if not Path(name).is_dir():
            raise
        raise ZooError(
            f"{name} is a folder: expected the name of a model (`lpcvc-zoo list`), to be built anew."
        ) from None


def working(on: str) -> Status:
    """A spinner while the block runs, on stderr: with --json a machine reads stdout, terminal or not."""
    return Console(stderr=True).status(escape(on))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, on a terminal only, while the block runs; it gives what moves the bar."""
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(what, total=None)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def split(values: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for value in values or [] for part in value.split(",") if part.strip())


def table(*headers: str) -> Table:
    """Columns by header; ">" before one puts its numbers to the right. Only the last column may wrap."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        made.add_column(
            header.removeprefix(">"),
            justify="right" if header.startswith(">") else "left",
            no_wrap=header != headers[-1],
            overflow="fold",
        )
    return made


def print_table(made: Table) -> None:
    """Print a table, wider than the terminal where it must: that folds a line, where rich would cut numbers.

    The last column gives way as far as its header.
    """
    endless = out.options.update(width=sys.maxsize)
    kept = [[column.header, *(column.cells if column.no_wrap else ())] for column in made.columns]
    least = sum(measure_renderables(out, endless, cells).maximum for cells in kept) + 2 * (len(kept) - 1)
    Console(width=max(out.width, least)).print(made)


def millions(count: int | None) -> str:
    return number(count and count / 1e6, 1)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def pair(image: str, text: str) -> str:
    return "-" if image == text == "-" else f"{image} + {text}"
