"""What a run is made of, read and checked: what is odd is said, what would spoil its score is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import cache_dir, given_path
from lpcvc_zoo.registry import chosen_weights, get_entry
from lpcvc_zoo.training import guard
from lpcvc_zoo.training.progress import RunProgress, Say, tell
from lpcvc_zoo.training.recipe import Recipe
from lpcvc_zoo.training.sources import ImageRef, TrainingData, read_training, size_of
from lpcvc_zoo.weights.hashes import sha256_once
from lpcvc_zoo.weights.identity import identity_of

WORTH_SAYING = 1e9  # bytes that a cache takes
BY_CHANCE = 0.01  # of a validation set: large collections hold a few pictures twice
FEWEST = 2  # images to train on, and to validate on: of one alone, nothing can be told apart
_SHOWN = 3  # files named in one message
_TRAINED, _VALIDATED = "the data to train on", "the data to validate on"
Digests = Mapping[ImageRef, str]  # sha256 (hex) of each image's bytes


@dataclass(frozen=True)
class Material:
    """What to train on, what to validate on, and notes to know them by.

    ``manifest``: what is trained on as a list of hashes; see ``guard``. ``made_of``: JSON values that differ
    where the data, the weights to start from or a teacher do.
    """

    data: TrainingData
    held_out: TrainingData | None
    manifest: str
    made_of: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Of what is trained on."""
        return str(self.made_of[_TRAINED])


def read_checked(recipe: Recipe, progress: RunProgress, *, strict: bool) -> Material:
    """What a run by this recipe is made of.

    DatasetError under ``strict`` for any flaw of the data; TrainingError for data that must not be used.
    """
    data, held_out = read_training(recipe.data)
    tell(data.problems, progress.say, strict=strict)
    if held_out is not None:
        tell(held_out.problems, progress.say, strict=strict)
    size = len(data.images) * 3 * (recipe.image_size or get_entry(recipe.model).image_size) ** 2
    if "image" in recipe.towers and recipe.data.cache and size > WORTH_SAYING:
        progress.say(
            f"The images' pixels take {size / 1e9:.1f} GB in {cache_dir()}, for all runs on the same images."
        )
    data, digests = _readable(data, "trained on", progress, strict=strict)
    if held_out is None and recipe.validates:
        data, held_out = _held_out(data, recipe.data.hold_out, digests)
    elif held_out is not None:
        held_out, more = _readable(held_out, "validated on", progress, strict=strict)
        digests |= more
    data = guard.without_captions(data, "trained on", progress.say)
    if held_out is not None:
        held_out = guard.without_captions(held_out, "validated on", progress.say)
        held_out = _apart(held_out, data, digests, progress.say)
    manifest = guard.manifest(data, [digests[image] for image in data.images])
    return Material(data, held_out, manifest, _made_of(recipe, data, held_out, digests))


def _readable(
    data: TrainingData, use: guard.Use, progress: RunProgress, *, strict: bool
) -> tuple[TrainingData, dict[ImageRef, str]]:
    """The data without images that can't be used, which are told of, and the digests of the others."""
    done = partial(progress.at, f"hashes of the images {use}")
    data, digests, problems = guard.hashed(data, use, done)
    tell(problems, progress.say, strict=strict)
    return data, digests


def _held_out(data: TrainingData, share: float, digests: Digests) -> tuple[TrainingData, TrainingData]:
    """Two parts that share no picture, the same ones every time.

    Which picture goes where hangs on its name and size alone, so more data moves none to the other side. At
    least two are held out: whatever the weights are, they find the texts of a single one.
    Copies go together, by the first of their names; they are trained on where holding them out would exceed
    the share.
    """
    copies: dict[str, list[int]] = {}
    for place, image in enumerate(data.images):
        copies.setdefault(digests[image], []).append(place)

    def rank(places: list[int]) -> bytes:
        name = min(data.images[place].name for place in places)
        return hashlib.sha256(f"{name}|{size_of(data.images[places[0]])}".encode()).digest()

    total, held = len(data.images), set[int]()
    count = held_out_of(total, share)
    for places in sorted(copies.values(), key=rank):
        if len(held) + len(places) <= count:
            held |= {*places}
    validation = data.part(sorted(held))
    if not validation.tells_models_apart or total - count < FEWEST:
        raise TrainingError(
            f"{total} images ({len(copies)} different) are too few to hold out {share:.0%} of them for "
            "validation. Name a validation set, or, in a recipe, set data.hold_out to a larger share, or to "
            "0 to go without."
        )
    return data.part(place for place in range(total) if place not in held), validation


def held_out_of(total: int, share: float) -> int:
    """How many of all images are held out: at least so many that there is something to tell apart."""
    return max(FEWEST, round(share * total))


def _apart(held_out: TrainingData, data: TrainingData, digests: Digests, say: Say) -> TrainingData:
    """The validation set without images that are trained on too. TrainingError for more than a few."""
    trained = {digests[image]: image for image in data.images}
    shared = {
        place: trained[digests[image]]
        for place, image in enumerate(held_out.images)
        if digests[image] in trained
    }
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


def _made_of(
    recipe: Recipe, data: TrainingData, held_out: TrainingData | None, digests: Digests
) -> dict[str, Any]:
    def identity(model: str, pretrained: str | None) -> Any:
        return identity_of(get_entry(model), chosen_weights(model, pretrained or False))

    notes = {
        _TRAINED: data.fingerprint(digests),
        _VALIDATED: None if held_out is None else held_out.fingerprint(digests),
        "the weights to start from": identity(recipe.model, recipe.pretrained),
    }
    for teacher in recipe.teachers:
        if teacher.model is not None:
            known = identity(teacher.model, teacher.pretrained)
        else:
            file = given_path(teacher.embeddings or "")
            # that it is missing is said when it is read
            known = sha256_once(file) if file.is_file() else None
        notes[f"what the teacher {teacher.name!r} is"] = known
    return notes
