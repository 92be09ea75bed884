"""``lint``: what a phone's NPU would dislike about a model, before any compiler sees it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer
from rich.markup import escape

from lpcvc_zoo import registry
from lpcvc_zoo.cli.one import RewritesForNpu, artifact_for_npu, given_in, options_of
from lpcvc_zoo.cli.shared import (
    AsJson,
    ImageSize,
    TextDepth,
    TextLength,
    Weights,
    names_from,
    out,
    print_json,
    working,
)
from lpcvc_zoo.contract import CONTRACTS, get_contract
from lpcvc_zoo.errors import TargetError, ZooError

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.lint import Finding, Report
    from lpcvc_zoo.targets.qnn.build import Verdict
    from lpcvc_zoo.targets.qnn.target import QnnTarget

SHOWN_NODES = 6
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
REFUSED = "refused-by-compiler"


class Looks(TypedDict):
    """What is asked of a file, be it the zoo's own or a stranger's."""

    plain_pixels: bool
    activations: bool
    htp_arch: int | None


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
    rewrites: RewritesForNpu = None,
    plain_pixels: Annotated[
        bool,
        typer.Option(
            "--plain-pixels", help="The model wants its pixels as the host gives them: nothing is missing."
        ),
    ] = False,
    activations: Annotated[
        bool, typer.Option("--activations", help="Also run photos and captions: does fp16 hold every value?")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Also ask Qualcomm's offline compiler, for this device: XR2 Gen 2, ..."),
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            help="Exit with 1 where this level or worse is found, or a rule could not look: "
            "error, warning, info, never."
        ),
    ] = "error",
    as_json: AsJson = False,
) -> None:
    """Look for what an NPU can't run, or runs badly: in any ONNX file, or in the zoo's own exports."""
    levels = ("error", "warning", "info", "never")
    if fail_on not in levels:
        raise typer.BadParameter(f"--fail-on: expected one of {', '.join(levels)}, got {fail_on!r}.")
    options = options_of(pretrained, contract, image_size, text_length, text_depth)
    target = None
    if device is not None:
        from lpcvc_zoo.targets.qnn.target import QnnTarget

        target = QnnTarget(device)
    looks: Looks = {
        "plain_pixels": plain_pixels,
        "activations": activations,
        "htp_arch": target.chip.htp_arch if target else None,
    }
    reports = _reports(what, contract, options, rewrites, looks)
    if target is not None:
        reports = [_compiled(report, target) for report in reports]
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        for report in reports:
            _print(report)
    problems = sorted({problem for report in reports for problem in report.problems})
    for problem in problems:
        print(f"Not all was looked at: {problem}", file=sys.stderr)
    if fail_on == "never":
        raise typer.Exit
    if problems:
        print("Exit status 1 for that; --fail-on never lets it pass.", file=sys.stderr)
    raise typer.Exit(int(bool(problems) or any(report.reaches(_level(fail_on)) for report in reports)))


def _reports(
    what: str,
    contract: str | None,
    options: registry.BuildOptions,
    rewrites: str | None,
    looks: Looks,
) -> list[Report]:
    from lpcvc_zoo.exporting.lint import lint as look
    from lpcvc_zoo.exporting.lint import lint_tower

    path, ours = Path(what), what in registry.list_models()  # the zoo's name wins
    if path.is_file() and not ours:
        idle: dict[str, object] = {"rewrites": rewrites, **options}
        if given := given_in(idle, but="contract"):
            raise ZooError(f"{what} is made already: expected no {given}.")
        return [look(path, contract=get_contract(contract) if contract else None, **looks)]
    if path.suffix == ".onnx" and not path.exists():
        raise ZooError(f"{path} is missing: expected an ONNX file.")
    artifact = artifact_for_npu(what, options, rewrites)
    return [lint_tower(artifact, tower, **looks) for tower in artifact.manifest.towers]


def _compiled(report: Report, target: QnnTarget) -> Report:
    """A report with what the compiler says of the file: first, because it is the last word."""
    asked = {"device": target.device}
    try:
        with working(f"compiling {report.file} for {target.device}"):
            verdict = target.check(Path(report.file))
    except TargetError as died:  # a crash or no answer: the rules' findings stand all the same
        return report.model_copy(update=asked | {"problems": (*report.problems, str(died))})
    findings = (*_refusals(verdict), *report.findings)
    return report.model_copy(update=asked | {"findings": findings, "compiles": verdict.error is None})


def _refusals(verdict: Verdict) -> Iterator[Finding]:
    """A finding for each refused node, with the words that name it; one for the file where none is."""
    from lpcvc_zoo.exporting.lint import Finding

    if verdict.error is None:
        return
    refused = verdict.refused
    unclaimed = [words for words in verdict.words if not any(_about(node.name, words) for node in refused)]
    said: list[tuple[str, tuple[str, ...], str]] = [
        (f"{node.type} is refused for {verdict.device}", (node.name or node.type,), node.name)
        for node in refused
    ]
    for message, nodes, name in said or [
        (f"can't be compiled for {verdict.device}: {verdict.error}", (), "")
    ]:
        own = [about for words in verdict.words if (about := _about(name, words))] or unclaimed
        yield Finding(
            rule=REFUSED,
            level="error",
            message=f"{message}: {' | '.join(own)}" if own else message,
            nodes=nodes,
            why="Qualcomm's compiler does not take it for the NPU: it would run on the CPU with a copy each "
            "way, and where nothing may, as in a context binary, the whole file is refused.",
            cure="See what else is found there. Begin with the first: a node is also refused for the type "
            "or the dynamic shape of what a node before it makes.",
        )


def _about(name: str, words: str) -> str | None:
    """The compiler's words where they name a node, without the other nodes that they list."""
    if not name or not re.search(rf"(?<![\w/.]){re.escape(name)}(?![\w/])(?!\.\w)", words):
        return None
    return re.sub(rf"\{{ name: (?!{re.escape(name)},)[^}}]*\}},?", "", words)


def _print(report: Report) -> None:
    known = [f"{report.tower} tower"] if report.tower else []
    known += [report.contract] if report.contract else []
    title = f" ({', '.join(known)})" if known else ""
    out.print(f"[bold]{escape(report.file)}[/bold]{title}", highlight=False, soft_wrap=True)
    if report.device is not None:
        answer = {True: "takes it whole", False: "refuses it", None: "gave no answer"}[report.compiles]
        out.print(f"  the compiler for {report.device} {answer}", highlight=False, soft_wrap=True)
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
