"""``lint``: what a phone's NPU would dislike about a model, before any compiler sees it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from lpcvc_zoo import registry
from lpcvc_zoo.cli.one import options_of
from lpcvc_zoo.cli.shared import (
    AsJson,
    ImageSize,
    Rewrites,
    TextDepth,
    TextLength,
    Weights,
    names_from,
    out,
    print_json,
)
from lpcvc_zoo.contract import CONTRACTS, get_contract
from lpcvc_zoo.errors import ZooError

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.lint import Report

SHOWN_NODES = 6
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def lint(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|NAME",
            help="An ONNX file, a folder made by export, or a model of the zoo.",
            autocompletion=names_from,
        ),
    ],
    contract: Annotated[
        str | None,
        typer.Option(help="Form of the inputs; guessed from a file.", autocompletion=lambda: list(CONTRACTS)),
    ] = None,
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    text_depth: TextDepth = None,
    rewrites: Rewrites = "npu",
    plain_pixels: Annotated[
        bool,
        typer.Option(
            "--plain-pixels", help="The model wants its pixels as the host gives them: nothing is missing."
        ),
    ] = False,
    activations: Annotated[
        bool, typer.Option("--activations", help="Also run photos and captions: does fp16 hold every value?")
    ] = False,
    fail_on: Annotated[
        str, typer.Option(help="Exit with 1 where this level or worse is found: error, warning, info, never.")
    ] = "error",
    as_json: AsJson = False,
) -> None:
    """Look for what an NPU can't run, or runs badly: in any ONNX file, or in the zoo's own exports."""
    levels = ("error", "warning", "info", "never")
    if fail_on not in levels:
        raise typer.BadParameter(f"--fail-on: expected one of {', '.join(levels)}, got {fail_on!r}.")
    options = options_of(pretrained, contract, image_size, text_length, text_depth)
    reports = _reports(what, contract, options, rewrites, plain_pixels, activations)
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        for report in reports:
            _print(report)
    for problem in sorted({problem for report in reports for problem in report.problems}):
        print(f"A rule could not be used: {problem}", file=sys.stderr)
    failed = fail_on != "never" and any(report.reaches(_level(fail_on)) for report in reports)
    raise typer.Exit(int(failed))


def _reports(
    what: str,
    contract: str | None,
    options: registry.BuildOptions,
    rewrites: str,
    plain_pixels: bool,
    activations: bool,
) -> list[Report]:
    from lpcvc_zoo.exporting.artifact import load_artifact
    from lpcvc_zoo.exporting.lint import lint as look
    from lpcvc_zoo.exporting.lint import lint_tower

    path = Path(what)
    if path.is_file():
        resolved = get_contract(contract) if contract else None
        return [look(path, contract=resolved, plain_pixels=plain_pixels, activations=activations)]
    if path.is_dir():
        artifact = load_artifact(path)
    elif path.suffix == ".onnx":
        raise ZooError(f"{path} is missing: expected an ONNX file.")
    else:
        from lpcvc_zoo.exporting.cache import cached_export

        registry.get_entry(what)
        with out.status(f"exporting {what}"):
            artifact = cached_export(what, rewrites=rewrites, **options)
    return [
        lint_tower(artifact, tower, plain_pixels=plain_pixels, activations=activations)
        for tower in artifact.manifest.towers
    ]


def _print(report: Report) -> None:
    known = [f"{report.tower} tower"] if report.tower else []
    known += [report.contract] if report.contract else []
    title = f" ({', '.join(known)})" if known else ""
    out.print(f"[bold]{escape(report.file)}[/bold]{title}", highlight=False, soft_wrap=True)
    for finding in report.findings:
        style = STYLES[finding.level]
        out.print(
            f"  [{style}]{finding.level}[/{style}] {finding.rule}: {escape(finding.message)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        if finding.nodes:
            more = len(finding.nodes) - SHOWN_NODES
            shown = ", ".join(finding.nodes[:SHOWN_NODES]) + (f" and {more} more" if more > 0 else "")
            out.print(f"      at    {escape(shown)}", highlight=False, soft_wrap=True)
        out.print(f"      why   {escape(finding.why)}", highlight=False, soft_wrap=True)
        out.print(f"      cure  {escape(finding.cure)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{report.count(level)} {level}s" for level in ("error", "warning"))
    unmeasured = "" if report.activations else "; activations not looked at (--activations)"
    out.print(f"  {counts}, {report.count('info')} notes{unmeasured}", style="dim", highlight=False)


def _level(name: str) -> Literal["error", "warning", "info"]:
    return "error" if name == "error" else "warning" if name == "warning" else "info"
