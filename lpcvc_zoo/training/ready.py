"""A run made ready: its caches filled, its student built, its state restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.training.augment import Augmenter
from lpcvc_zoo.training.batches import Samples
from lpcvc_zoo.training.distributed import Group
from lpcvc_zoo.training.folder import RunFolder
from lpcvc_zoo.training.losses import Objective
from lpcvc_zoo.training.norms import shared_statistics
from lpcvc_zoo.training.pixels import cached_pixels
from lpcvc_zoo.training.progress import RunProgress
from lpcvc_zoo.training.reading import Material
from lpcvc_zoo.training.recipe import Recipe
from lpcvc_zoo.training.sources import TrainingData
from lpcvc_zoo.training.steps import Stepper
from lpcvc_zoo.training.student import Student, student_of
from lpcvc_zoo.training.teachers import Lesson, lessons
from lpcvc_zoo.training.texts import text_pool, tower_ids
from lpcvc_zoo.training.validate import Validation


@dataclass
class Standing:
    """How a run stands beside its weights: what it chose so far."""

    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0  # epochs in a row without a better recall

    @property
    def found(self) -> bool:
        return self.best_epoch > 0


@dataclass
class Run:
    """A run made ready: the data's batches, the stepper, the validation."""

    recipe: Recipe
    folder: RunFolder
    stepper: Stepper
    samples: Samples
    validation: Validation | None
    per_epoch: int
    fingerprint: str
    group: Group
    progress: RunProgress
    standing: Standing = field(default_factory=Standing)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.per_epoch


def made_ready(
    recipe: Recipe,
    material: Material,
    folder: RunFolder,
    device: torch.device,
    workers: int,
    group: Group,
    progress: RunProgress,
) -> Run:
    student = student_of(recipe)
    data, held_out = material.data, material.held_out
    if group.is_first:
        folder.begin(recipe, material.made_of, material.manifest)
    choices = _choices(recipe, data)
    per_epoch = _steps_per_epoch(recipe, len(choices), group.processes)
    with_images = "image" in recipe.towers
    mirror = with_images and recipe.augment.flip == "swap_words"
    pool = text_pool(data.texts, mirror=mirror, negatives=recipe.data.negatives)
    model = student.model.to(device)
    with group.first_goes_ahead():
        validation = held_out and Validation(
            held_out, model, device=device, workers=workers, done=partial(progress.at, "validation images")
        )
        taught = lessons(
            recipe, model.contract, data.images, pool.texts[: pool.true],
            device=device, workers=workers, done=partial(progress.at, "the teacher's embeddings"),
        )  # fmt: skip
        pixels = None
        if with_images and recipe.data.cache:
            pixels = cached_pixels(
                data.images, model, device=device, workers=workers, done=partial(progress.at, "images")
            )
    ids = None
    if "text" in recipe.towers:
        ids = tower_ids(pool.texts, model)
    samples = Samples(
        data, choices, Augmenter(recipe.augment), model.contract, recipe.seed,
        model.entry.image_size,
        model.preprocessing.interpolation, recipe.data.siblings, pool, pixels, ids, with_images,
    )  # fmt: skip
    stepper = _stepper(recipe, student, taught, recipe.epochs * per_epoch, group, device)
    run = Run(
        recipe, folder, stepper, samples, validation or None, per_epoch, material.fingerprint, group, progress
    )
    _resume(run)
    if student.scale_is_new and not stepper.taken:
        progress.say(
            f"{model.weights} has no learnt scale of cosines (its logit_scale is 0): it starts from "
            f"{model.logit_scale.exp().item():.1f}, as an untrained model's."
        )
    progress.say(
        f"{recipe.model}: {len(choices)} {'images' if with_images else 'texts'}, {run.steps} steps in "
        f"{recipe.epochs} epochs on {device}"
        + (f", validated on {len(held_out.images)} images" if held_out else ", not validated")
        + f"; {_stopping(run)}"
        + (f"; going on from step {stepper.taken}" if stepper.taken else "")
    )
    return run


def _stopping(run: Run) -> str:
    """The rule by which the run ends, and which epoch's weights are kept."""
    kept = f"the best by {run.validation.label}" if run.validation is not None else "the last one"
    if run.recipe.patience is None:
        return f"no early stopping: all epochs are run, and {kept} is kept"
    return f"stops after {run.recipe.patience} epochs without a better recall, and {kept} is kept"


def _choices(recipe: Recipe, data: TrainingData) -> NDArray[np.int64]:
    """Places of the images to train on (of texts, where only those are)."""
    if recipe.towers == ("text",):
        return np.arange(len(data.texts))
    return np.array(
        [place for place, own in enumerate(data.positives) if own or not recipe.needs_pairs], np.int64
    )


def _steps_per_epoch(recipe: Recipe, items: int, processes: int) -> int:
    if items < recipe.batch_size:
        raise TrainingError(
            f"batch_size is {recipe.batch_size}, but there are only {items} items to train on."
        )
    parts = processes * recipe.accumulate
    if recipe.batch_size % parts:
        raise TrainingError(
            f"batch_size {recipe.batch_size} can't be shared out evenly over {processes} processes with "
            f"{recipe.accumulate} parts each: give a multiple of {parts}."
        )
    return items // recipe.batch_size


def _stepper(
    recipe: Recipe,
    student: Student,
    taught: dict[str, Lesson],
    steps: int,
    group: Group,
    device: torch.device,
) -> Stepper:
    torch.manual_seed(recipe.seed)  # for what the objective itself learns, and for dropout
    objective = Objective(
        recipe.losses, student.model.entry.embed_dim, {name: lesson.dim for name, lesson in taught.items()}
    )
    if group.processes > 1:
        student.towers.image = shared_statistics(student.towers.image, device)
        student.towers.text = shared_statistics(student.towers.text, device)
    return Stepper(student, objective, taught, recipe, steps, group, device)


def _resume(run: Run) -> None:
    state = run.group.from_first(run.folder.state() if run.group.is_first else None)
    if state is None:
        return
    run.stepper.restore(state["stepper"])
    run.standing = Standing(**state["standing"])
