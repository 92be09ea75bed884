"""``export``, ``profile`` and ``evaluate``: one model at a time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lpcvc_zoo import registry
from lpcvc_zoo.cli import lengths
from lpcvc_zoo.cli.profiles import print_profiles
from lpcvc_zoo.cli.shared import (
    AsJson,
    Calibration,
    ContractChoice,
    ContractName,
    Device,
    ImageSize,
    Name,
    Precision,
    Rewrites,
    Runtime,
    TargetName,
    TextDepth,
    TextLength,
    Threads,
    Weights,
    check_model,
    counting,
    names_from,
    number,
    out,
    print_json,
    print_table,
    table,
    working,
)
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.exporting.rewrites import NONE, NPU, REWRITES
from lpcvc_zoo.retrieval import photos

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.artifact import Artifact, Manifest
    from lpcvc_zoo.exporting.calibrate import Pool
    from lpcvc_zoo.targets.base import Target

DEFAULTS = {"calibration": photos.CALIBRATION, "dataset": photos.NAME}
NameOrFolder = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FOLDER",
        help="An entry, entry.tag, or the folder of an exported or adopted model.",
        autocompletion=names_from,
    ),
]
RewritesForNpu = Annotated[
    str | None,
    typer.Option("--rewrites", help=f"As for export; {NPU} by default. Only for a model of the zoo."),
]
TextLengthOrAuto = Annotated[
    str | None,
    typer.Option(help="Cut the text sequence to this many tokens; auto: the least that loses nothing."),
]


def export(
    name: Name,
    folder: Annotated[Path | None, typer.Option("--out", help="Default: exported/NAME-CONTRACT.")] = None,
    contract: ContractName = "lpcvc2026",
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLengthOrAuto = None,
    dataset: Annotated[str, typer.Option(help="What --text-length auto is found on.")] = photos.NAME,
    text_depth: TextDepth = None,
    fuse: Annotated[bool, typer.Option(help="Fold branches and BatchNorm into the convolutions.")] = True,
    rewrites: Rewrites = "none",
    as_json: AsJson = False,
) -> None:
    """Export both towers to ONNX, check them against torch, and write a manifest."""
    check_model(name)
    from lpcvc_zoo.exporting.rewrites import resolve

    resolve(rewrites)
    auto, tokens = lengths.parsed(text_length)
    if not auto:
        _refuse_without("--text-length auto", dataset=dataset)
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.exporting.artifact import check_folder
    from lpcvc_zoo.exporting.onnx import export as export_model

    folder = folder or Path("exported") / f"{name}-{contract}"
    check_folder(folder)
    options = options_of(pretrained, contract, image_size, tokens, text_depth)
    options["fuse"] = fuse
    choice = None
    if auto:
        from lpcvc_zoo.retrieval.datasets import load_dataset

        choice = lengths.find(name, options, load_dataset(dataset)).choice
        options["text_length"] = choice.text_length
    with working(f"exporting {name}"), busy_machine():
        made = export_model(registry.build(name, **options), folder, rewrites=rewrites, fused=fuse)
    manifest = (made.record(choice) if choice else made).manifest
    _warn_of_other_models(manifest, folder)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    shown = table("tower", ">MB", ">nodes", "worst cosine to torch", "input")
    for tower in TOWERS:
        file = manifest.tower(tower)
        parity = "not measured" if file.parity is None else f"{file.parity.min_cosine:.7f}"
        shape = f"{file.input_name} {file.input_dtype} {list(file.input_shape)}"
        shown.add_row(
            tower,
            f"{file.size_bytes / 1e6:.1f}",
            str(file.nodes),
            parity,
            escape(shape),
        )
    print_table(shown)
    if choice:
        lengths.print_choice(choice)
    _print_effects(manifest)
    files = ", ".join(manifest.tower(tower).file for tower in TOWERS)
    out.print(escape(f"in {folder}: {files}"), highlight=False, soft_wrap=True)
    made_of = f"{manifest.weights} weights, opset {manifest.opset}, {manifest.seconds:.0f} s"
    out.print(escape(made_of), style="dim")


def profile(
    name: NameOrFolder,
    contract: ContractChoice = None,
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    text_depth: TextDepth = None,
    target: TargetName = "onnxruntime",
    device: Device = None,
    runtime: Runtime = None,
    precision: Precision = None,
    calibration: Calibration = photos.CALIBRATION,
    threads: Threads = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Also every operator: its time, or what it moves.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model's towers on a target: latency, load, memory; or what its compiler says they move."""
    if precision is None:
        _refuse_without("--precision", calibration=calibration)
    from lpcvc_zoo.bench.artifacts import warn_of_ignored_encodings
    from lpcvc_zoo.bench.locks import quiet_machine
    from lpcvc_zoo.targets import get_target
    from lpcvc_zoo.targets.base import rewrites_for

    more, exported, pool = _where(target, device, runtime, precision, calibration)
    where = get_target(target, threads=threads, operators=operators or None, **more)
    options = options_of(pretrained, contract, image_size, text_length, text_depth)
    artifact = artifact_of(name, options, rewrites_for(where, exported), exported, pool)
    warn_of_ignored_encodings(artifact, [where])
    towers = artifact.manifest.towers
    with working(f"measuring {name}"), quiet_machine() if where.exclusive else nullcontext():
        _submit(where, artifact, measured=True)
        compiled = {tower: where.compile(artifact.path(tower), tower) for tower in towers}
        profiles = {tower: where.profile(made) for tower, made in compiled.items()}
    if as_json:
        print_json({tower: measured.model_dump(mode="json") for tower, measured in profiles.items()})
        return
    print_profiles(profiles, operators)
    for tower, made in compiled.items():
        if Path(made.reference).is_absolute():  # not a job of a service
            out.print(
                escape(f"{tower} tower: {made.reference}"), style="dim", highlight=False, soft_wrap=True
            )


def evaluate(
    name: NameOrFolder,
    dataset: Annotated[str, typer.Option(help="A registered name, or a path to your own.")] = "photos",
    contract: ContractChoice = None,
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLengthOrAuto = None,
    text_depth: TextDepth = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Score the exported towers there instead of torch.")
    ] = None,
    device: Device = None,
    runtime: Runtime = None,
    precision: Precision = None,
    calibration: Calibration = photos.CALIBRATION,
    images: Annotated[Path | None, typer.Option(help="Where the images of your own dataset are.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score this many images, spread evenly, with their texts alone.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Karpathy JSON; test by default.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Any flaw of the dataset is an error.")] = False,
    save_embeddings: Annotated[Path | None, typer.Option(help="Also write the embeddings (.npz).")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a dataset: recall@k both ways with 95 % intervals."""
    auto, tokens = lengths.parsed(text_length)
    options = options_of(pretrained, contract, image_size, tokens, text_depth)
    artifact = _in_folder(name, options)
    if auto and artifact is not None:
        raise ZooError(f"{name} is made already: expected no --text-length.")
    in_torch = artifact is None and target is None and precision is None
    if in_torch:
        _refuse_without("--target", device=device, runtime=runtime)
    if precision is None:
        _refuse_without("--precision", calibration=calibration)
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.retrieval.calibration import calibrating, check_apart
    from lpcvc_zoo.retrieval.datasets import load_dataset
    from lpcvc_zoo.retrieval.evaluate import BATCH_SIZE, CompiledPair
    from lpcvc_zoo.retrieval.evaluate import evaluate as score
    from lpcvc_zoo.retrieval.metrics import KS

    precisions = [precision or FLOAT, artifact.manifest.precision if artifact else FLOAT]
    scored = photos.scored_on(dataset, precisions)
    data = load_dataset(scored, strict=strict, images=images, split=split)
    data = data if limit is None else data.spread(limit)
    if canonical(precision or FLOAT) != FLOAT and artifact is None:
        check_apart(calibrating(calibration), data)
    for problem in data.problems:
        print(f"{problem.level}: {problem}", file=sys.stderr)
    found = lengths.find(name, options, data) if auto else None
    if found:
        options["text_length"] = found.choice.text_length
    what: Any = None
    batch = BATCH_SIZE
    if found and in_torch:
        artifact = artifact_of(name, options).record(found.choice)
        weights = artifact.manifest.weights
    if found and in_torch and save_embeddings is None:
        scores = found.scores[found.choice.text_length]
    elif in_torch:
        what = registry.build(name, **options)
        weights, own = what.weights, what.contract
    else:
        from lpcvc_zoo.bench.artifacts import warn_of_ignored_encodings
        from lpcvc_zoo.targets import get_target
        from lpcvc_zoo.targets.base import rewrites_for

        target = target or "onnxruntime"
        more, exported, pool = _where(target, device, runtime, precision, calibration)
        where = get_target(target, **more)
        artifact = artifact_of(name, options, rewrites_for(where, exported), exported, pool)
        warn_of_ignored_encodings(artifact, [where])
        artifact = artifact.record(found.choice) if found else artifact
        weights, own = artifact.manifest.weights, get_contract(artifact.manifest.contract)
        files = {tower: artifact.path(tower) for tower in TOWERS}  # half a pair ends here
        _submit(where, artifact, measured=False)
        if getattr(where, "emulates", False):
            batch = 1  # seconds each: progress after every one
        what = CompiledPair(where, {tower: where.compile(files[tower], tower) for tower in TOWERS})
    if what is not None:
        with counting(f"scoring {name} on {data.name}") as progress, busy_machine():
            scores = score(
                what,
                data,
                contract=own,
                save_embeddings=save_embeddings,
                batch_size=batch,
                progress=progress,
            )
    if weights == "untrained":
        _warn_of_chance(name)
    if as_json:
        why: dict[str, Any] = {}
        if found and artifact:
            why = {
                "text_length_choice": found.choice.model_dump(mode="json"),
                "artifact": str(artifact.folder),
            }
        print_json(scores.model_dump(mode="json") | why)
        return
    if found and artifact:
        lengths.print_choice(found.choice)
        where_made = f"The export at that length, with this choice in its manifest: {artifact.folder}"
        out.print(escape(where_made), style="dim", highlight=False, soft_wrap=True)
    shown = table("direction", "k", "counted", "recall", "95 % interval", "chance")
    for recall in scores.recalls:
        shown.add_row(
            recall.direction.replace("_", " "),
            str(recall.k),
            "fraction" if recall.mode == "fraction" else "any hit",
            f"{recall.value:.3f}",
            f"{recall.low:.3f} to {recall.high:.3f}",
            f"{recall.chance:.3f}",
        )
    print_table(shown)
    for direction, count, kind in (
        ("image to text", scores.texts, "texts"), ("text to image", scores.images, "images")
    ):  # fmt: skip
        if left_out := [f"recall@{k}" for k in KS if k > count]:
            out.print(f"{direction}: no {' and no '.join(left_out)} of {count} {kind}", style="dim")
    of_what = f"{name} ({weights}) on {scores.dataset}: {scores.images} images, {scores.texts} texts"
    out.print(escape(of_what), style="dim")


def artifact_of(
    name: str,
    options: registry.BuildOptions,
    rewrites: str = NONE,
    precision: str = FLOAT,
    pool: Pool | None = None,
) -> Artifact:
    """The artifact in a folder of that name, or the export of a model of the zoo."""
    artifact = _in_folder(name, options)
    if artifact is not None:
        own = artifact.manifest.precision
        if precision not in (FLOAT, own):
            raise ZooError(f"{name} is made already, in {own}: expected no --precision {precision}.")
        if pool is not None:
            raise ZooError(f"{name} is made already, in {own}: expected no --calibration.")
        return artifact
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.exporting.cache import cached_export

    with working(f"exporting {name}"), busy_machine():
        return cached_export(name, rewrites=rewrites, precision=precision, pool=pool, **options)


def artifact_for_npu(name: str, options: registry.BuildOptions, rewrites: str | None) -> Artifact:
    """As ``artifact_of``, rewritten for an NPU unless asked otherwise; ZooError for rewrites of a folder."""
    if rewrites is not None and _in_folder(name, options) is not None:
        raise ZooError(f"{name} is made already: expected no --rewrites.")
    return artifact_of(name, options, rewrites or NPU)


def _where(
    target: str, device: str | None, runtime: str | None, precision: str | None, calibration: str
) -> tuple[dict[str, Any], str, Pool | None]:
    """What a target is asked for beyond its name; the export's precision, and what that calibrates on."""
    from lpcvc_zoo.targets import options_of as taken_by

    asked: dict[str, Any] = {"device": device, "runtime": runtime}
    precision = canonical(precision or FLOAT)
    if precision == FLOAT:
        return asked, FLOAT, None
    from lpcvc_zoo.retrieval.calibration import Calibration as CalibrationData
    from lpcvc_zoo.retrieval.calibration import calibrating, pool

    if "precision" not in taken_by(target):
        return asked, precision, pool(calibration)
    data = CalibrationData(calibrating(calibration))
    return asked | {"precision": precision, "calibration": data}, FLOAT, None


def _refuse_without(needed: str, **given: str | None) -> None:
    """ZooError for options that would change nothing without another one."""
    idle = [f"--{option} {value}" for option, value in given.items() if value != DEFAULTS.get(option)]
    if idle:
        raise ZooError(f"{', '.join(idle)} has no effect without {needed}: give that too, or leave it out.")


def _submit(where: Target, artifact: Artifact, *, measured: bool) -> None:
    """Have both towers under way before anyone waits, where a target works elsewhere."""
    from lpcvc_zoo.targets.base import AsyncTarget

    if isinstance(where, AsyncTarget):
        for tower in artifact.manifest.towers:
            compiling = where.submit_compile(artifact.path(tower), tower)
            if measured:
                where.submit_profile(compiling)


def options_of(
    pretrained: str | None,
    contract: str | None,
    image_size: int | None,
    text_length: int | None,
    text_depth: int | None,
) -> registry.BuildOptions:
    options: registry.BuildOptions = {
        "pretrained": pretrained if pretrained is not None else False,
        "image_size": image_size,
        "text_length": text_length,
        "text_depth": text_depth,
    }
    return options if contract is None else {**options, "contract": contract}


def _in_folder(name: str, options: registry.BuildOptions) -> Artifact | None:
    """The artifact that lies in a folder of that name; None for a model of the zoo, whose name wins."""
    if name in registry.list_models() or not Path(name).is_dir():
        if Path(name).name != name:
            raise ZooError(
                f"There is no folder {name}: expected one that export, quantize or adopt wrote, or the name "
                "of a model (`lpcvc-zoo list`)."
            )
        check_model(name)
        return None
    from lpcvc_zoo.exporting.artifact import load_artifact

    artifact = load_artifact(name)
    own = artifact.manifest.contract
    same = "contract" if options.get("contract") == own else ""
    if given := given_in({**options}, but=same):
        raise ZooError(f"{name} is made already, under contract {own}: expected no {given}.")
    return artifact


def given_in(options: Mapping[str, object], *, but: str) -> str:
    """The options that were given, as they are written, without one."""
    given = [name for name, value in options.items() if value is not None and value is not False]
    return ", ".join(f"--{name.replace('_', '-')}" for name in given if name != but)


def _warn_of_other_models(manifest: Manifest, folder: Path) -> None:
    """Say what a rewrite costs that no bound holds: it is exported whatever its embeddings became."""
    for tower in TOWERS:
        for effect in manifest.tower(tower).effects:
            if effect.places and REWRITES[effect.rewrite].min_cosine is None:
                said = f"{effect.rewrite} makes another model of the {tower} tower: worst cosine to before"
                score = f"Judge it by recall: lpcvc-zoo evaluate {folder}"
                print(f"warning: {said} {number(effect.min_cosine, 4)}. {score}", file=sys.stderr)


def _warn_of_chance(name: str) -> None:
    """Loud, because a model's name alone means untrained weights, and a table of recalls looks like one."""
    tags = registry.get_entry(name).pretrained if name in registry.list_models() else ()
    way = f" A published checkpoint: {name}.{tags[0].tag}" if tags else ""
    print(f"warning: these weights are untrained, so this recall is chance.{way}", file=sys.stderr)


def _print_effects(manifest: Manifest) -> None:
    shown = table("what", "tower", ">places", ">before", ">after", "of", "worst cosine to before")
    for tower in TOWERS:
        file = manifest.tower(tower)
        for done in file.prepared:
            counts = [str(done.before), str(done.after), done.counted]
            shown.add_row(done.step, tower, str(done.places), *counts, number(done.min_cosine, 7))
        for effect in file.effects:
            nodes = [str(effect.nodes_before), str(effect.nodes_after)] if effect.places else ["-", "-"]
            cosine = number(effect.min_cosine, 7)
            shown.add_row(effect.rewrite, tower, str(effect.places), *nodes, "nodes", cosine)
    if shown.row_count:
        print_table(shown)
