"""``sweep`` and ``report``: the main job over many models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lpcvc_zoo.cli.shared import AsJson, Calibration, Runtime, Threads, out, print_json, split
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.files import try_to_write
from lpcvc_zoo.retrieval import photos

REPEATED = ("targets", "devices", "contracts", "precisions", "text_lengths", "text_depths")


def sweep(
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Names with wildcards, entry.tag, or !pattern to leave out. Repeat, or use commas."
        ),
    ] = None,
    artifacts: Annotated[
        list[Path] | None, typer.Option(help="A folder made by adopt or export. Repeatable.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Where to measure. Repeatable.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a target has several: a name, chipset, attribute or all-phones. Repeatable."
        ),
    ] = None,
    runtime: Runtime = None,
    contract: Annotated[list[str] | None, typer.Option(help="Form of the inputs. Repeatable.")] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float, w8a16, w8a8, or image=w8a16+text=float. Repeat, or use commas."),
    ] = None,
    calibration: Calibration = photos.CALIBRATION,
    rewrites: Annotated[
        str | None,
        typer.Option(help="none, npu, or names with commas between; by default what suits each target."),
    ] = None,
    text_length: Annotated[
        list[str] | None,
        typer.Option(help="Tokens to cut the text sequence to, a row for each. Repeat, or use commas."),
    ] = None,
    text_depth: Annotated[
        list[str] | None,
        typer.Option(help="Layers of the text transformer to keep, a row for each. Repeat, or use commas."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="What to score on.")] = "photos",
    folder: Annotated[Path, typer.Option("--out", help="Folder of the ledger and the report.")] = Path(
        "results"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Only the few small models.")] = False,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--untrained",
            help="Published weights for all, fetched if need be, or none; by default those on this machine. "
            "Takes no value: --models NAME.TAG chooses one.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what is done.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Exports beside each other.")] = None,
    in_flight: Annotated[int, typer.Option(help="Models whose jobs may be at a remote target at once.")] = 8,
    series: Annotated[
        str | None, typer.Option(help="Another word measures anew what a remote target did before.")
    ] = None,
    threads: Threads = None,
    evaluate_untrained: Annotated[
        bool, typer.Option("--evaluate-untrained", help="Score untrained models too; their recall is chance.")
    ] = False,
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="Exit with 1 if any model failed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export, measure, score and plot many models, cheapest first. Run again to go on after a stop."""
    from pydantic import ValidationError

    from lpcvc_zoo.bench.sweep import SweepOptions, run

    given = {
        "models": split(models),
        "artifacts": tuple(artifacts or ()),
        "targets": split(target),
        "contracts": split(contract),
        "precisions": split(precision),
        "devices": split(device),
        "runtime": runtime,
        "calibration": calibration,
        "in_flight": in_flight,
        "series": series,
        "rewrites": rewrites,
        "text_lengths": split(text_length),
        "text_depths": split(text_depth),
        "dataset": dataset,
        "out": folder,
        "quick": quick,
        "pretrained": pretrained,
        "force": force,
        "jobs": jobs,
        "threads": threads,
        "evaluate_untrained": evaluate_untrained,
        "fail_on_error": fail_on_error,
    }
    try:
        options = SweepOptions.model_validate(
            {option: value for option, value in given.items() if value not in (None, ())}
        )
    except ValidationError as error:
        problems = (f"{_flag(str(item['loc'][0]))}: {item['msg']}" for item in error.errors())
        raise typer.BadParameter("; ".join(problems)) from None
    outcome = run(options, console=Console(stderr=True) if as_json else out)
    if as_json:
        print_json([row.model_dump(mode="json") for row in outcome.rows])
    raise typer.Exit(outcome.exit_code(options.fail_on_error))


def _flag(field: str) -> str:
    """The flag of an option: one that is repeated has a name in the singular, its field one in the plural."""
    return f"--{field.removesuffix('s') if field in REPEATED else field}".replace("_", "-")


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a sweep.")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Write the report of a sweep again from its ledger."""
    from lpcvc_zoo.bench.ledger import FILE, Ledger
    from lpcvc_zoo.bench.report import write_report

    if not (folder / FILE).is_file():
        raise ZooError(f"{folder} has no {FILE}: expected the --out folder of a sweep. Run a sweep first.")
    try:
        try_to_write(folder)
        with Ledger(folder, read_only=True) as ledger, ledger.reporting():
            rows = ledger.rows()
            write_report(rows, folder)
    except OSError as error:
        raise ZooError(
            f"The report can't be written into {folder}: {error}. Make room there, or move away what is in "
            "its place, and run it again; the ledger has all rows."
        ) from error
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    out.print(escape(f"{len(rows)} rows: {folder / 'report.html'}"), highlight=False)
