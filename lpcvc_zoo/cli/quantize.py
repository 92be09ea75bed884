"""``quantize``: 8-bit weights, 8- or 16-bit activations, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lpcvc_zoo.cli.one import options_of
from lpcvc_zoo.cli.shared import (
    AsJson,
    Calibration,
    ContractName,
    ImageSize,
    Name,
    Rewrites,
    TextDepth,
    TextLength,
    Weights,
    check_model,
    counting,
    number,
    out,
    print_json,
    print_table,
    table,
    working,
)
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.retrieval import photos

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lpcvc_zoo.exporting.artifact import Artifact, Manifest
    from lpcvc_zoo.exporting.quantize import Cost
    from lpcvc_zoo.retrieval.metrics import Recall
    from lpcvc_zoo.retrieval.records import RetrievalDataset

SHOWN = 15


def quantize(
    name: Name,
    precision: Annotated[
        str, typer.Option(help="w8a16, w8a8, or tower by tower: image=w8a16+text=float.")
    ] = "w8a16",
    engine: Annotated[str, typer.Option(help="onnxruntime, or aimet, which is an extra.")] = "onnxruntime",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Default: exported/NAME-PRECISION; by AIMET, with -aimet.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Instead, show which layers cost most, with a plot."),
    ] = False,
    contract: ContractName = "lpcvc2026",
    pretrained: Weights = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    text_depth: TextDepth = None,
    rewrites: Rewrites = "npu",
    calibration: Calibration = photos.CALIBRATION,
    dataset: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="What trained towers are scored on, before and after.")
    ] = photos.HELD_OUT,
    samples: Annotated[int, typer.Option(min=1, help="Photos and captions of it to calibrate on.")] = 32,
    seed: Annotated[int, typer.Option(help="Draws them.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Keep a tower that collapses.")] = False,
    as_json: AsJson = False,
) -> None:
    """Quantise both towers to QDQ ONNX, calibrated on real photos and captions, and score trained ones."""
    check_model(name)
    from lpcvc_zoo.exporting import quantize as room

    room.check_quantises(precision)
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.exporting.artifact import check_folder
    from lpcvc_zoo.exporting.cache import cached_export
    from lpcvc_zoo.exporting.engines import ENGINES, find_engine
    from lpcvc_zoo.exporting.precision import canonical
    from lpcvc_zoo.retrieval.calibration import calibrating, check_apart, pool
    from lpcvc_zoo.retrieval.datasets import load_dataset

    find_engine(engine)
    idle = ["--force"] * force + [f"--dataset {dataset}"] * (dataset != photos.HELD_OUT)
    if explain and idle:
        raise ZooError(f"{', '.join(idle)} has no effect with --explain, which scores nothing: leave it out.")
    scored = None if explain else load_dataset(dataset)
    if scored is not None:
        check_apart(calibrating(calibration), scored)
    how: dict[str, Any] = {"samples": samples, "seed": seed, "pool": pool(calibration), "engine": engine}
    suffix = "" if engine == ENGINES[0] else f"-{engine}"
    folder = folder or Path("exported") / f"{name}-{canonical(precision)}{suffix}"
    check_folder(folder)
    options = options_of(pretrained, contract, image_size, text_length, text_depth)
    with working(f"exporting {name}"), busy_machine():
        artifact = cached_export(name, rewrites=rewrites, **options)
    if explain:
        with working("quantising every layer alone"), busy_machine():
            costs = room.explain(artifact, precision, **how)
        plot = _plot(costs, folder / "sensitivity.png", f"{name}, {precision}")
        if as_json:
            print_json([cost.model_dump(mode="json") for cost in costs])
        else:
            _print_costs(costs)
            out.print(escape(f"plot: {plot}"), highlight=False, soft_wrap=True)
        return
    assert scored is not None
    with working(f"quantising {name}"), busy_machine():
        made = room.quantize(artifact, folder, precision, force=force, **how)
    recalls = _recalls(artifact, made, scored)
    if as_json:
        shown = {name: recall.model_dump(mode="json") for name, recall in recalls.items()}
        print_json({**made.manifest.model_dump(mode="json"), "recall": shown})
        return
    _print(made.manifest)
    _print_recalls(recalls, scored)
    out.print(escape(f"in {folder}"), style="dim", soft_wrap=True)


def _recalls(whole: Artifact, quantized: Artifact, scored: RetrievalDataset) -> dict[str, Recall]:
    """The contract's metric before and after, by precision; nothing for untrained weights."""
    if whole.manifest.weights == "untrained":
        return {}
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.retrieval.evaluate import evaluate

    found: dict[str, Recall] = {}
    metric = get_contract(whole.manifest.contract).metric
    for artifact in (whole, quantized):
        precision = artifact.manifest.precision
        with counting(f"scoring {precision} on {scored.name}") as progress, busy_machine():
            scores = evaluate(artifact, scored, progress=progress)
        found[precision] = scores.recall(metric.k, mode=metric.mode)
    return found


def _print_recalls(recalls: Mapping[str, Recall], scored: RetrievalDataset) -> None:
    if not recalls:
        out.print("Untrained weights: their recall is chance, so only cosines are told.", style="dim")
        return
    k = next(iter(recalls.values())).k
    shown = table("precision", f">recall@{k}", "95 % interval", ">chance")
    for precision, recall in recalls.items():
        interval = f"{recall.low:.3f} to {recall.high:.3f}"
        shown.add_row(precision, number(recall.value, 3), interval, number(recall.chance, 3))
    out.print()
    print_table(shown)
    said = f"image to text, on {scored.name}: {len(scored.images)} images, none of which calibrates"
    out.print(escape(said), style="dim", soft_wrap=True)


def _print(manifest: Manifest) -> None:
    shown = table("tower", "precision", ">MB", ">mean cosine", ">worst", "kept in float")
    for tower in TOWERS:
        made = manifest.tower(tower)
        facts = made.quantized
        shown.add_row(
            tower,
            facts.precision if facts else "float",
            f"{made.size_bytes / 1e6:.1f}",
            number(facts.mean_cosine if facts else None, 5),
            number(facts.agreement.min_cosine if facts else None, 5),
            escape(", ".join(facts.kept) or "nothing") if facts else "all",
        )
    print_table(shown)
    if engines := {facts.engine or "" for tower in TOWERS if (facts := manifest.tower(tower).quantized)}:
        out.print(f"by {', '.join(engines)}; cosines are to the float tower", style="dim")


def _print_costs(costs: Sequence[Cost]) -> None:
    for by in ("layer", "operator"):
        shown = table(by, "tower", ">nodes", ">1 - cosine when it alone is quantised")
        for cost in [cost for cost in costs if cost.by == by][:SHOWN]:
            shown.add_row(escape(cost.name), cost.tower, str(cost.nodes), f"{cost.cost:.2e}")
        print_table(shown)
        out.print()


def _plot(costs: Sequence[Cost], path: Path, title: str) -> Path:
    """Bars of the dearest layers of each tower, on a log scale."""
    from matplotlib.figure import Figure

    from lpcvc_zoo.files import written_whole

    towers = [tower for tower in TOWERS if any(cost.tower == tower for cost in costs)]
    figure = Figure(figsize=(6 * len(towers), 5), layout="constrained")
    figure.suptitle(f"{title}: what quantising one layer alone costs")
    for tower, axes in zip(towers, figure.subplots(1, len(towers), squeeze=False)[0], strict=True):
        dearest = [cost for cost in costs if cost.tower == tower and cost.by == "layer"][:SHOWN][::-1]
        axes.barh(
            [cost.name for cost in dearest], [max(cost.cost, 1e-9) for cost in dearest], color="#0072B2"
        )
        axes.set_xscale("log")
        axes.set_xlabel("1 - mean cosine to the float tower")
        axes.set_title(f"{tower} tower")
        axes.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path
