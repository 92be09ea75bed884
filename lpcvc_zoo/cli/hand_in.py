"""``submit`` and ``bundle``: the rules' two steps, and what the best teams hand in at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lpcvc_zoo.cli.one import NameOrFolder, RewritesForNpu, artifact_for_npu, options_of
from lpcvc_zoo.cli.shared import (
    AsJson,
    ContractChoice,
    TextDepth,
    TextLength,
    Weights,
    out,
    print_json,
    print_table,
    table,
    working,
)
from lpcvc_zoo.contract import ORGANISERS, TOWERS, Tower, get_contract
from lpcvc_zoo.errors import SubmissionError

if TYPE_CHECKING:
    from lpcvc_zoo.submission import Review
    from lpcvc_zoo.targets.aihub import AIHubTarget

MARKS = {True: "[green]ok[/green]", False: "[bold red]no[/bold red]", None: "[yellow]?[/yellow]"}
Results = Annotated[Path, typer.Option(help="The --out folder of a sweep, for its rows.")]


def submit(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE_JOB TEXT_JOB | ROW",
            help="Two compile job ids, or a sweep's row: name or key.",
        ),
    ],
    yes: Annotated[
        bool,
        typer.Option("--yes/--dry-run", help="Share both jobs if no check failed, or only look."),
    ] = False,
    check_sharing: Annotated[
        bool, typer.Option("--check-sharing", help="Only ask whether both jobs are shared.")
    ] = False,
    results: Results = Path("results"),
    contract: ContractChoice = None,
    device: Annotated[str | None, typer.Option(help="Default: the contract's.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Measure recall on it, on the device.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="In ms; the contract's by default.")] = None,
    measure_reference: Annotated[
        bool,
        typer.Option("--measure-reference", help="Measure OpenAI's CLIP there, if no row has it."),
    ] = False,
    address: Annotated[str, typer.Option(help="With whom to share.")] = ORGANISERS,
    team: Annotated[str | None, typer.Option(help="For the form.")] = None,
    contact: Annotated[str | None, typer.Option(help="For the form.")] = None,
    account: Annotated[str | None, typer.Option(help="The client's profile ~/.qai_hub/ACCOUNT.ini.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Where the record and the form go.")] = Path(
        "submissions"
    ),
    as_json: AsJson = False,
) -> None:
    """Check two compiled towers against the rules; with --yes share them and print the form's fields.

    Checking runs a few samples on the device, and measures what was not measured before. Nothing is shared
    without --yes. Run again after a stop, it shares only what is not shared yet.
    """
    from lpcvc_zoo.retrieval.datasets import load_dataset
    from lpcvc_zoo.submission import (
        Submission,
        find_row,
        folder_of,
        read_rows,
        reference_ms,
        review,
        share,
        sharing,
    )
    from lpcvc_zoo.submission.record import check_address
    from lpcvc_zoo.submission.rows import compile_jobs
    from lpcvc_zoo.targets.aihub import AIHubTarget, open_service

    if yes and check_sharing:
        raise SubmissionError("Expected --yes or --check-sharing, not both: one shares, the other only asks.")
    check_address(address)
    rows = read_rows(results)
    row = find_row(rows, what[0]) if len(what) == 1 else None
    jobs = compile_jobs(row) if row else _pair(what)
    if check_sharing:
        _print_sharing(
            sharing(open_service(account), tuple(jobs[tower] for tower in TOWERS), address), address, as_json
        )
        return
    rules = get_contract(contract or (row.contract if row else "lpcvc2026"))
    target = AIHubTarget(device or rules.device, account=account)
    reference = reference_ms(rows, rules.name, target.device)
    if reference is None and measure_reference:
        reference = _measured_reference(target, rules.name)
    with working("checking on the device"):
        seen = review(
            target, jobs, rules,
            row=row, dataset=load_dataset(dataset) if dataset else None, model=row.model if row else None,
            budget_ms=budget, reference_ms=reference,
        )  # fmt: skip
    submission = Submission(address=address, team=team, contact=contact, review=seen)
    if not as_json:
        _print_review(seen)
    if yes:
        submission = share(target.service, submission, folder)
    if as_json:
        print_json(submission.model_dump(mode="json") | {"ready": seen.ready, "form": submission.form})
    elif yes:
        kept = folder_of(submission, folder)
        said = f"\nBoth jobs are shared with {address}. The form's fields, also in {kept}:"
        out.print(escape(said), soft_wrap=True)
        for label, value in submission.form.items():
            out.print(f"  {label}: {escape(value)}", highlight=False, soft_wrap=True)
    elif seen.ready:
        out.print(f"\nNothing was shared. With --yes both jobs are shared with {address}.", soft_wrap=True)
    raise typer.Exit(int(not seen.ready))


def bundle(
    name: NameOrFolder,
    folder: Annotated[Path, typer.Option("--out", help="The bundle's folder; a zip comes beside it.")],
    results: Results = Path("results"),
    contract: ContractChoice = None,
    pretrained: Weights = None,
    text_length: TextLength = None,
    text_depth: TextDepth = None,
    rewrites: RewritesForNpu = None,
    as_json: AsJson = False,
) -> None:
    """Write what the top teams hand in: ONNX files, manifest, evaluation script, versions, results."""
    from lpcvc_zoo.submission import read_rows, write_bundle

    options = options_of(pretrained, contract, None, text_length, text_depth)
    artifact = artifact_for_npu(name, options, rewrites)
    zipped = write_bundle(artifact, folder, read_rows(results, ever=True))
    if as_json:
        print_json({"folder": str(folder), "zip": str(zipped)})
        return
    for path in (folder, zipped):
        out.print(escape(str(path)), highlight=False, soft_wrap=True)


def _pair(what: list[str]) -> dict[Tower, str]:
    if len(what) != 2 or what[0] == what[1]:
        raise SubmissionError(
            f"Expected two compile job ids (image, text) or one row, got: {' '.join(what)}."
        )
    return dict(zip(TOWERS, what, strict=True))


def _measured_reference(target: AIHubTarget, contract: str) -> float:
    from lpcvc_zoo.exporting.cache import cached_export
    from lpcvc_zoo.submission.rows import REFERENCE

    with working(f"measuring {REFERENCE}"):
        artifact = cached_export(REFERENCE, rewrites=target.rewrites, contract=contract)
        for tower in TOWERS:  # both under way before either is waited for
            target.submit_profile(target.submit_compile(artifact.path(tower), tower))
        profiles = [target.profile(target.compile(artifact.path(tower), tower)) for tower in TOWERS]
    return sum(profile.latency.median_ms for profile in profiles if profile.latency)


def _print_review(seen: Review) -> None:
    shown = table("", "check", "what was seen")
    for check in seen.checks:
        shown.add_row(MARKS[check.passed], escape(check.name), escape(check.detail))
    print_table(shown)
    for job in seen.jobs:
        out.print(f"{job.tower}: {job.id} {job.url}", style="dim", highlight=False, soft_wrap=True)


def _print_sharing(shared: dict[str, bool], address: str, as_json: bool) -> None:
    if as_json:
        print_json(shared)
    else:
        for job_id, is_shared in shared.items():
            out.print(f"{job_id} is {'' if is_shared else 'not '}shared with {address}", highlight=False)
    raise typer.Exit(int(not all(shared.values())))
