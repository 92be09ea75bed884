"""``export``, ``profile`` and ``evaluate``: one model at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lpcvc_zoo import registry
from lpcvc_zoo.cli.shared import (
    AsJson,
    ContractName,
    ImageSize,
    Name,
    Rewrites,
    TargetName,
    TextLength,
    Threads,
    Weights,
    number,
    out,
    print_json,
    table,
)
from lpcvc_zoo.contract import TOWERS, get_contract

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.artifact import Manifest
    from lpcvc_zoo.targets.base import Profile


def export(
    name: Name,
    folder: Annotated[Path | None, typer.Option("--out", help="Default: exported/NAME-CONTRACT.")] = None,
    contract: ContractName = "lpcvc2026",
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    fuse: Annotated[bool, typer.Option(help="Fold branches and BatchNorm into the convolutions.")] = True,
    rewrites: Rewrites = "none",
    as_json: AsJson = False,
) -> None:
    """Export both towers to ONNX, check them against torch, and write a manifest."""
    registry.get_entry(name)  # a misspelt name should not wait for torch
    from lpcvc_zoo.exporting.rewrites import resolve

    resolve(rewrites)
    from lpcvc_zoo.exporting.onnx import export as export_model

    folder = folder or Path("exported") / f"{name}-{contract}"
    options = _options(pretrained, contract, image_size, text_length)
    options["fuse"] = fuse
    model = registry.build(name, **options)
    with out.status(f"exporting {name}"):
        manifest = export_model(model, folder, rewrites=rewrites, fused=fuse).manifest
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    shown = table("tower", "file", "MB", "nodes", "input", "worst cosine to torch")
    for tower in TOWERS:
        made = manifest.tower(tower)
        parity = "not measured" if made.parity is None else f"{made.parity.min_cosine:.7f}"
        shape = f"{made.input_name} {made.input_dtype} {list(made.input_shape)}"
        shown.add_row(
            tower,
            str(folder / made.file),
            f"{made.size_bytes / 1e6:.1f}",
            str(made.nodes),
            escape(shape),
            parity,
        )
    out.print(shown)
    if manifest.rewrites:
        _print_effects(manifest)
    out.print(f"{manifest.weights} weights, opset {manifest.opset}, {manifest.seconds:.0f} s", style="dim")


def profile(
    name: Name,
    contract: ContractName = "lpcvc2026",
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    target: TargetName = "onnxruntime",
    threads: Threads = None,
    operators: Annotated[bool, typer.Option("--operators", help="Also time every operator.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure both towers on a target: latency, load time, memory."""
    registry.get_entry(name)
    from lpcvc_zoo.bench.locks import busy_machine, quiet_machine
    from lpcvc_zoo.exporting.cache import cached_export
    from lpcvc_zoo.targets import get_target

    options = _options(pretrained, contract, image_size, text_length)
    where = get_target(target, threads=threads, operators=operators or None)
    with out.status(f"exporting {name}"), busy_machine():
        artifact = cached_export(name, **options)
    with out.status(f"measuring {name}"), quiet_machine():
        profiles = {tower: where.profile(where.compile(artifact.path(tower), tower)) for tower in TOWERS}
    if as_json:
        print_json({tower: profiles[tower].model_dump(mode="json") for tower in TOWERS})
        return
    shown = table("tower", "median ms", "p10 to p90", "runs", "load ms", "peak MB", "file MB")
    for tower, measured in profiles.items():
        shown.add_row(tower, *_measured(measured))
    out.print(shown)
    first = profiles["image"]
    versions = ", ".join(f"{tool} {version}" for tool, version in first.runtime_versions.items())
    out.print(f"{first.device}, {first.threads} threads, {versions}", style="dim", highlight=False)
    if operators:
        _print_operators(profiles)


def evaluate(
    name: Name,
    dataset: Annotated[str, typer.Option(help="A registered name, or a path to your own.")] = "photos",
    contract: ContractName = "lpcvc2026",
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Score the exported towers there instead of torch.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Where the images of your own dataset are.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Karpathy JSON; test by default.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Any flaw of the dataset is an error.")] = False,
    save_embeddings: Annotated[Path | None, typer.Option(help="Also write the embeddings (.npz).")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a dataset: recall@k both ways with 95 % intervals."""
    registry.get_entry(name)
    from lpcvc_zoo.retrieval.datasets import load_dataset
    from lpcvc_zoo.retrieval.evaluate import CompiledPair
    from lpcvc_zoo.retrieval.evaluate import evaluate as score

    data = load_dataset(dataset, strict=strict, images=images, split=split)
    for problem in data.problems:
        print(f"{problem.level}: {problem}", file=sys.stderr)
    options = _options(pretrained, contract, image_size, text_length)
    what: Any
    if target is None:
        what = registry.build(name, **options)
        weights = what.weights
    else:
        from lpcvc_zoo.exporting.cache import cached_export
        from lpcvc_zoo.targets import get_target

        artifact = cached_export(name, **options)
        weights = artifact.manifest.weights
        where = get_target(target)
        what = CompiledPair(where, {t: where.compile(artifact.path(t), t) for t in TOWERS})
    with out.status(f"scoring {name} on {data.name}"):
        scores = score(what, data, contract=get_contract(contract), save_embeddings=save_embeddings)
    if as_json:
        print_json(scores.model_dump(mode="json"))
        return
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
    out.print(shown)
    out.print(
        f"{name} ({weights}) on {scores.dataset}: {scores.images} images, {scores.texts} texts", style="dim"
    )


def _options(
    pretrained: str | None, contract: str, image_size: int | None, text_length: int | None
) -> registry.BuildOptions:
    return {
        "pretrained": pretrained or False,
        "contract": contract,
        "image_size": image_size,
        "text_length": text_length,
    }


def _print_effects(manifest: Manifest) -> None:
    shown = table("rewrite", "tower", ">places", ">nodes before", ">after", "worst cosine to before")
    for tower in TOWERS:
        for effect in manifest.tower(tower).effects:
            nodes = [str(effect.nodes_before), str(effect.nodes_after)] if effect.places else ["-", "-"]
            cosine = number(effect.min_cosine, 7)
            shown.add_row(effect.rewrite, tower, str(effect.places), *nodes, cosine)
    out.print(shown)


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


def _print_operators(profiles: dict[Any, Profile], most: int = 12) -> None:
    shown = table("tower", "ms", "operator", "node")
    for tower, measured in profiles.items():
        timed = sorted(measured.operators or (), key=lambda item: item.time_ms or 0.0, reverse=True)
        for operator in timed[:most]:
            shown.add_row(tower, number(operator.time_ms, 3), operator.type, escape(operator.name))
    out.print(shown)
