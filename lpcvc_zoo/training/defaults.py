"""A recipe for those who bring only a model and a folder of captioned images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import given_path
from lpcvc_zoo.registry import get_entry
from lpcvc_zoo.retrieval import coco
from lpcvc_zoo.retrieval.files import read_json
from lpcvc_zoo.training.progress import Say
from lpcvc_zoo.training.reading import FEWEST, held_out_of
from lpcvc_zoo.training.recipe import Data, Recipe, checked
from lpcvc_zoo.training.sources import read_training

VALIDATED = 500  # images held out where the data has no validation part of its own, or the share below
MOST_HELD_OUT = 0.2
BATCH = 256
FEWEST_STEPS = 4  # an epoch
FROM_SCRATCH, FINE_TUNING = 5e-4, 2e-5  # learning rates


def recipe_for(
    model: str, data: str, *, pretrained: str | None, contract: str, validation: str | None, say: Say
) -> Recipe:
    """A recipe with sensible settings for this data, the same ones every time.

    COCO's own tree (``annotations/captions_train2017.json`` and ``..._val2017.json``), a Karpathy JSON and a
    folder with ``train`` and ``val`` bring their own validation part; of anything else a part is held out.
    ``say`` is told which part of COCO's is taken, where there are several.
    """
    sources = _sources(data, say)
    if validation is not None:
        sources["validation"] = validation
    everything, held_out = read_training(Data.model_validate(sources))
    count = len(everything.images)
    if count < FEWEST:
        raise TrainingError(f"{data} has {count} images to train on: a contrast needs two at the least.")
    if held_out is None and count < 2 * FEWEST:
        say(f"{count} images are too few to hold some out: nothing is validated.")
        sources["hold_out"] = 0
    elif held_out is None:
        sources["hold_out"] = min(MOST_HELD_OUT, VALIDATED / count)
        count -= held_out_of(count, sources["hold_out"])
    batch = BATCH
    while batch > 2 and batch * FEWEST_STEPS > count:
        batch //= 2
    tuned = pretrained is not None or "." in model
    if not tuned:
        published = [record.tag for record in get_entry(model).pretrained]
        others = f" (--pretrained starts from {' or '.join(published)}, or a file)" if published else ""
        say(f"{model} learns from untrained weights{others}.")
    return checked(
        {
            "model": model,
            "pretrained": pretrained,
            "contract": contract,
            "batch_size": batch,
            "data": sources,
            "optimiser": {"lr": FINE_TUNING if tuned else FROM_SCRATCH, "ema": 0.999},
        },
        "the recipe made for these options",
    )


def own_validation(data: str, say: Say | None) -> str:
    """The part of the data that is there to validate on, such as COCO's tree brings; else all of it."""
    sources = _sources(data, say or (lambda message: None))
    return str(sources.get("validation", data))


def _sources(data: str, say: Say) -> dict[str, Any]:
    path = given_path(data)
    train, held_out = _by_year(path, "train"), _by_year(path, "val")
    if train:
        # one year alone: train2017 holds most pictures of val2014, under other names
        year = max(train.keys() & held_out.keys() or train.keys())
        found = {"pairs": str(train[year])}
        if year in held_out:
            found["validation"] = str(held_out[year])
        if len(train.keys() | held_out.keys()) > 1:
            taken = " and ".join(Path(file).name for file in found.values())
            say(f"{path / 'annotations'} has several years, which share pictures; taken: {taken}.")
        return found
    if (path / "train").is_dir() and (path / "val").is_dir():
        return {"pairs": str(path / "train"), "validation": str(path / "val")}
    if path.suffix.lower() == ".json" and path.is_file():
        document = read_json(path)
        if coco.is_karpathy(document) and any(item.get("split") == "val" for item in document["images"]):
            return {"pairs": data, "validation": data}
    return {"pairs": data}


def _by_year(tree: Path, part: str) -> dict[str, Path]:
    """COCO's captions of a part (``train`` or ``val``), by what follows it in the file's name."""
    start = f"captions_{part}"
    return {file.stem.removeprefix(start): file for file in tree.glob(f"annotations/{start}*.json")}
