"""A run's data, read and checked: what is odd in it is said, what would spoil its score is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from lpcvc_zoo.errors import DatasetError, TrainingError
from lpcvc_zoo.files import cache_dir
from lpcvc_zoo.retrieval.records import Problem, summary
from lpcvc_zoo.training import guard
from lpcvc_zoo.training.progress import RunProgress, Say
from lpcvc_zoo.training.recipe import Recipe
from lpcvc_zoo.training.sources import ImageRef, TrainingData, read_training

WORTH_SAYING = 1e9  # bytes that a cache takes
BY_CHANCE = 0.01  # of a validation set: large collections hold a few pictures twice
_SHOWN = 3  # files named in one message


def read_checked(
    recipe: Recipe, image_size: int, progress: RunProgress, *, strict: bool
) -> tuple[TrainingData, TrainingData | None, str]:
    """What to train on, what to validate on, and the first as a list of hashes; see ``guard``.

    DatasetError under ``strict`` for any flaw of the data; TrainingError for data that must not be used.
    """
    data, held_out = read_training(recipe.data, recipe.data.hold_out if recipe.needs_pairs else 0)
    tell(data.problems, progress.say, strict=strict)
    if held_out is not None:
        tell(held_out.problems, progress.say, strict=strict)
    size = len(data.images) * 3 * image_size**2
    if "image" in recipe.towers and recipe.data.cache and size > WORTH_SAYING:
        progress.say(f"The images' pixels take {size / 1e9:.1f} GB in {cache_dir()}, for all runs.")
    data, hashes = _guarded(data, "trained on", progress)
    if held_out is not None:
        held_out, held_hashes = _guarded(held_out, "validated on", progress)
        if recipe.data.validation is not None:  # what is held out of the data shares none of its images
            trained = dict(zip(hashes, data.images, strict=True))
            held_out = _apart(held_out, held_hashes, trained, progress.say)
    return data, held_out, guard.manifest(data, hashes)


def tell(problems: Sequence[Problem], say: Say, *, strict: bool = False) -> None:
    """What was odd in the files, the first few and how many. DatasetError for warnings under ``strict``."""
    for level in ("warning", "note"):
        if found := [problem for problem in problems if problem.level == level]:
            if strict and level == "warning":
                raise DatasetError(f"The data has flaws; {summary(found)}.")
            say(f"{level}: {summary(found)}")


def _guarded(data: TrainingData, use: guard.Use, progress: RunProgress) -> tuple[TrainingData, list[str]]:
    return guard.guarded(
        data, use, say=progress.say, done=partial(progress.at, f"hashes of the images {use}")
    )


def _apart(
    held_out: TrainingData, hashes: Iterable[str], trained: Mapping[str, ImageRef], say: Say
) -> TrainingData:
    """The validation set without images that are trained on too. TrainingError for more than a few."""
    shared = {place: trained[digest] for place, digest in enumerate(hashes) if digest in trained}
    if not shared:
        return held_out
    named = [f"{held_out.images[place]} (trained on as {image})" for place, image in shared.items()]
    count = f"{len(shared)} of the {len(held_out.images)} images to validate on are trained on as well"
    shown = f"{'; '.join(named[:_SHOWN])}{'; ...' if len(named) > _SHOWN else ''}"
    if len(shared) > BY_CHANCE * len(held_out.images):
        raise TrainingError(
            f"{count}: {shown}. Recall on them would say nothing about new images. Name a validation set of "
            "other images, or none: a part of the data is then held out."
        )
    say(f"{count} and are left out of the validation: {shown}")
    return held_out.part(place for place in range(len(held_out.images)) if place not in shared)
