"""``train`` and ``soup``: models of your own."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lpcvc_zoo import registry
from lpcvc_zoo.cli.shared import (
    AsJson,
    ContractChoice,
    ImageSize,
    Name,
    TextLength,
    Weights,
    check_model,
    out,
    print_json,
    print_table,
    table,
    working,
)
from lpcvc_zoo.contract import get_contract

_STOPPED = 130  # what a shell expects of a command that Ctrl-C ended
_NOTHING_YET = "no state was saved yet. To begin anew"


def train(
    what: Annotated[str, typer.Argument(help="RECIPE.toml, or a MODEL together with --data.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the run; run again to go on with it.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="With a MODEL: images with captions, in any form that evaluate takes, or webdataset shards "
            "(a folder of them, or 'train-{000..099}.tar'). Pixels are cached: 150 KB an image of 224 x 224."
        ),
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="With a MODEL: what to choose by; else part of the data is held out.")
    ] = None,
    pretrained: Weights = None,
    contract: ContractChoice = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that make batches ahead.")] = None,
    save_steps: Annotated[
        int, typer.Option(min=1, help="Save the state after so many steps at the latest.")
    ] = 500,
    strict: Annotated[bool, typer.Option("--strict", help="Any flaw of the data is an error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model by a recipe, or with defaults on a folder of captioned images. Run again to go on.

    On several GPUs: torchrun --nproc-per-node N -m lpcvc_zoo.cli train RECIPE.toml --out DIR
    """
    from lpcvc_zoo.training.recipe import checked, read_recipe

    console = Console(stderr=True) if as_json else out
    is_first = os.environ.get("RANK", "0") == "0"
    if what.endswith(".toml"):
        if data or validation or pretrained or contract:
            raise typer.BadParameter(
                "a recipe names its own data, weights and contract; change them in the file."
            )
        recipe = read_recipe(Path(what))
    else:
        check_model(what)
        if data is None:
            raise typer.BadParameter(
                "--data is missing: name a folder of captioned images, or a RECIPE.toml."
            )
        from lpcvc_zoo.training.defaults import recipe_for
        from lpcvc_zoo.training.progress import RunProgress

        recipe = recipe_for(
            what, data, pretrained=pretrained, contract=contract or "lpcvc2026",
            validation=validation, say=RunProgress(console if is_first else None).say,
        )  # fmt: skip
    changed: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    document = recipe.model_dump() | {name: value for name, value in changed.items() if value is not None}
    if lr is not None:
        document["optimiser"]["lr"] = lr
    recipe = checked(document, "the recipe with these options")
    from lpcvc_zoo.training.folder import RunFolder
    from lpcvc_zoo.training.run import train as run

    try:
        result = run(
            recipe,
            folder,
            device=device,
            workers=_workers(workers, device),
            save_steps=save_steps,
            strict=strict,
            console=console,
        )
    except KeyboardInterrupt:
        if is_first:
            again = shlex.join(["lpcvc-zoo", *sys.argv[1:]])
            saved = f"the state is in {folder}. To go on" if RunFolder(folder).has_begun else _NOTHING_YET
            print(f"Stopped; {saved}, run the same again: {again}", file=sys.stderr)
        raise typer.Exit(_STOPPED) from None
    if not is_first:
        return
    if as_json:
        print_json(result)
        return
    if "recall" in result:
        best = f"best epoch {result['best_epoch']}: {result['metric']} {result['recall']:.4f}"
        out.print(best, highlight=False)
    _say_how_to_score(folder / result["checkpoint"])


def _say_how_to_score(path: Path) -> None:
    """The checkpoint records its sizes, but builds at the entry's own."""
    from lpcvc_zoo.weights.read import read_facts

    facts = read_facts(path)
    entry, contract = registry.get_entry(facts["entry"]), get_contract(facts["contract"])
    score = ["lpcvc-zoo", "evaluate", entry.name, "--pretrained", str(path), "--contract", contract.name]
    if facts["image_size"] != entry.image_size:
        score += ["--image-size", str(facts["image_size"])]
    if facts["text_length"] != min(entry.text.context_length, contract.text.length):
        score += ["--text-length", str(facts["text_length"])]
    out.print(escape(f"{path}\nScore it: {shlex.join(score)}"), highlight=False, soft_wrap=True)


def _workers(asked: int | None, device: str) -> int:
    """On the CPU the towers need all cores themselves."""
    if asked is not None:
        return asked
    import torch

    uses_gpu = device != "cpu" and torch.cuda.is_available()
    return min(8, os.cpu_count() or 1) if uses_gpu else 0


def soup(
    name: Name,
    checkpoints: Annotated[list[Path], typer.Argument(help="Fine-tuned from the same start; two or more.")],
    validation: Annotated[str, typer.Option(help="What to choose by; never a test set.")],
    path: Annotated[Path, typer.Option("--out", help="File of the average (.safetensors).")],
    method: Annotated[
        str, typer.Option(help="greedy: add each if recall does not fall; or uniform: all.")
    ] = "greedy",
    contract: ContractChoice = None,
    image_size: ImageSize = None,
    text_length: TextLength = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Average checkpoints of one model into one, chosen on a validation set."""
    check_model(name)
    if method not in ("greedy", "uniform"):
        raise typer.BadParameter(f"--method {method}: expected greedy or uniform.")
    from lpcvc_zoo.training.distributed import device_of
    from lpcvc_zoo.training.progress import RunProgress
    from lpcvc_zoo.training.soup import soup as cook

    with working("tasting"):
        made = cook(
            name,
            checkpoints,
            validation,
            path,
            method="greedy" if method == "greedy" else "uniform",
            contract=contract,
            image_size=image_size,
            text_length=text_length,
            device=device_of(device),
            workers=_workers(None, device),
            say=RunProgress(Console(stderr=True) if as_json else out).say,
        )
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    shown = table(">recall", "95 % interval", "checkpoints")
    for item in made.tried:
        mark = " (chosen)" if item == made.chosen else ""
        interval = f"{item.recall.low:.4f} to {item.recall.high:.4f}"
        shown.add_row(f"{item.recall.value:.4f}", interval, escape(" + ".join(item.checkpoints) + mark))
    print_table(shown)
    out.print(made.metric, highlight=False, soft_wrap=True)
    _say_how_to_score(path)
