"""A recipe: all that decides what a training run gives, read from a TOML file. No torch here."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from lpcvc_zoo.contract import TOWERS, Tower, get_contract
from lpcvc_zoo.entry import Facts
from lpcvc_zoo.errors import TrainingError, UnknownNameError
from lpcvc_zoo.registry import get_entry

CONTRASTIVE = ("clip", "siglip", "negatives")  # without a teacher
WITHIN = ("feature", "relational")  # of each tower alone; all others need both
TEMPERED = ("affinity", "interactive", "relational")  # the contrastive ones learn their scale
MOST_CHANGE = 0.3  # of brightness, contrast and saturation; a test holds colours' names against it
LossKind = Literal["clip", "siglip", "negatives", "affinity", "interactive", "feature", "relational"]


class Source(Facts):
    """Where data lies: a registered dataset's name, a path, or webdataset shards (``"a-{000..099}.tar"``).

    ``images``: the folder of a file's images, where they don't lie beside it. ``split``: of a Karpathy JSON
    (several joined by "+"); by default ``train+restval`` to train and ``val`` to validate.
    """

    path: str
    images: str | None = None
    split: str | None = None


class Data(Facts):
    """What is trained on, and what is chosen by.

    ``pairs``: images with texts. ``images``: folders of images without texts; ``texts``: files with one
    text a line: for distilling a single tower. ``validation``: its own source; without one the share
    ``hold_out`` of the images is held out (0: no validation). ``siblings``: how many texts of an image are
    drawn at a time; they are positives of their image and, in losses between texts, each other's neighbours.
    ``negatives``: how many false texts are made of each (left and right or colours swapped).
    ``cache``: keep the graph's own pixels in a memory-mapped file, as bytes; else every step takes the whole
    road from image file to pixels, which is exact also where the graph resizes, and slow.
    """

    pairs: tuple[Source, ...] = ()
    images: tuple[Source, ...] = ()
    texts: tuple[Source, ...] = ()
    validation: Source | None = None
    hold_out: float = Field(default=0.05, ge=0, lt=1)
    siblings: int = Field(default=1, ge=1)
    negatives: int = Field(default=0, ge=0)
    cache: bool = True

    @field_validator("pairs", "images", "texts", mode="before")
    @classmethod
    def _sources(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_source(item) for item in items)

    @field_validator("validation", mode="before")
    @classmethod
    def _validation(cls, value: Any) -> Any:
        return _source(value)

    @model_validator(mode="after")
    def _has_data(self) -> Data:
        if not (self.pairs or self.images or self.texts):
            raise ValueError("name what to train on: pairs=, images= or texts=")
        return self


class Augment(Facts):
    """Changes of an image that leave its texts true: colours keep their names, left stays left.

    ``crop``: the least share of the area that a random crop keeps (1: no crop); an image one of whose texts
    says where something is ("left", "at the top", "behind") is not cropped. ``flip``: never; only images
    none of whose texts names a direction; or all, with left and right swapped in the texts, which a teacher
    must be asked about anew (``live``). The next three are the most that a factor may differ from 1; there is
    no change of hue. ``rotate``: degrees at most. ``blur``, ``noise``: how often, as a probability.
    ``mix``: how often a picture is laid over another of the data, in any proportion (mixup,
    arXiv:1710.09412); only for an image tower alone, whose teachers are all live.
    """

    crop: float = Field(default=0.7, gt=0, le=1)
    flip: Literal["never", "unless_directional", "swap_words"] = "unless_directional"
    brightness: float = Field(default=0.2, ge=0)
    contrast: float = Field(default=0.2, ge=0)
    saturation: float = Field(default=0.1, ge=0)
    rotate: float = Field(default=0.0, ge=0, le=30)
    blur: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)
    mix: float = Field(default=0.0, ge=0, le=1)

    @field_validator("brightness", "contrast", "saturation")
    @classmethod
    def _keeps_colours(cls, value: float) -> float:
        if value > MOST_CHANGE:
            raise ValueError(
                f"{value} is more than {MOST_CHANGE}, up to which colours are known to keep their names: "
                "beyond that, texts that name one could become false"
            )
        return value


class Loss(Facts):
    """One term of the objective; ``lpcvc_zoo.training.losses`` says what each kind computes.

    ``teacher`` is needed by the kinds of distillation. ``temperature``, of ``affinity``, ``interactive`` and
    ``relational``, divides the cosines that they compare. ``towers``: for ``feature`` and ``relational``,
    which towers learn.
    """

    kind: LossKind
    weight: float = Field(default=1.0, gt=0)
    teacher: str | None = None
    temperature: float = Field(default=0.05, gt=0)
    towers: tuple[Tower, ...] = TOWERS

    @model_validator(mode="after")
    def _has_its_teacher(self) -> Loss:
        if (self.teacher is None) != (self.kind in CONTRASTIVE):
            problem = "takes no teacher" if self.teacher else "needs teacher= the name of one of [[teachers]]"
            raise ValueError(f"the loss {self.kind!r} {problem}")
        if not self.towers:
            raise ValueError("towers= names no tower")
        return self

    @model_validator(mode="after")
    def _uses_what_is_set(self) -> Loss:
        """A default may be written out, as ``model_dump`` does."""
        default = type(self).model_fields["temperature"].default
        if self.temperature != default and self.kind not in TEMPERED:
            raise ValueError(f"the loss {self.kind!r} takes no temperature; {', '.join(TEMPERED)} do")
        if set(self.towers) != set(TOWERS) and self.kind not in WITHIN:
            raise ValueError(
                f"the loss {self.kind!r} is between both towers; towers= is for {' and '.join(WITHIN)}"
            )
        return self

    @property
    def needs(self) -> tuple[Tower, ...]:
        """The towers that must be run for it."""
        return self.towers if self.kind in WITHIN else TOWERS


class Teacher(Facts):
    """A model to learn from, by ``name``: an entry (``model``, with ``pretrained`` as ``build`` takes it), or
    ``embeddings``: an .npz as ``lpcvc-zoo evaluate --save-embeddings`` writes it (either half will do).

    ``live``: the model is asked about each image anew in every step, cropped and changed as the student gets
    it, not once about the file (function matching, arXiv:2106.05237).
    """

    name: str
    model: str | None = None
    pretrained: str | None = None
    embeddings: str | None = None
    live: bool = False

    @model_validator(mode="after")
    def _is_one_thing(self) -> Teacher:
        if "." in self.name:  # of which torch makes no module's name
            raise ValueError(f"teacher {self.name!r}: a name takes no dot")
        if (self.model is None) == (self.embeddings is None):
            raise ValueError(f"teacher {self.name!r}: name either model= or embeddings=")
        for field in ("pretrained", "live"):
            if self.embeddings is not None and getattr(self, field):
                raise ValueError(f"teacher {self.name!r}: {field}= goes with model=, not with embeddings=")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimiser(Facts):
    """AdamW; the rate rises over the share ``warmup`` of all steps and falls by a cosine to ``final_lr``.

    ``layer_decay``: the rate of each layer is that of the next one times this, 1 for the last.
    ``ema``: the decay of an average over the weights, which is then what is validated and kept.
    """

    lr: float = Field(default=5e-4, gt=0)
    final_lr: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)


class Recipe(Facts):
    """One training run. ``batch_size`` counts the images (or texts) of one step, over all processes.

    ``accumulate``: in how many parts each process takes its share; the gradient is that of the whole batch,
    but for BatchNorm, whose statistics are each part's own. ``checkpointing``: towers compute their blocks'
    inner activations twice instead of keeping them.
    ``freeze``: towers that are run but stay as they are; a tower that no loss needs is not run at all.
    ``patience``: training stops after so many epochs in a row without a better recall on the validation set.
    ``expected`` is for people: what the recipe is known to give.
    """

    model: str
    pretrained: str | None = None
    contract: str = "lpcvc2026"
    image_size: int | None = Field(default=None, ge=16)
    text_length: int | None = Field(default=None, ge=3)
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=256, ge=2)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpointing: bool = False
    freeze: tuple[Tower, ...] = ()
    patience: int | None = Field(default=None, ge=1)
    data: Data
    augment: Augment = Augment()
    losses: tuple[Loss, ...] = (Loss(kind="clip"),)
    teachers: tuple[Teacher, ...] = ()
    optimiser: Optimiser = Optimiser()
    expected: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) != len(names):
            raise ValueError(f"two teachers share a name: {names}")
        for loss in self.losses:
            if loss.teacher is not None and loss.teacher not in names:
                raise ValueError(str(UnknownNameError("teacher", loss.teacher, names)))
        unused = [name for name in names if all(loss.teacher != name for loss in self.losses)]
        if unused:
            raise ValueError(f"no loss learns from {', '.join(unused)}: name it in a loss, or leave it out")
        if not self.losses:
            raise ValueError("losses= is empty")
        if self.needs_pairs and not self.data.pairs:
            kinds = ", ".join(loss.kind for loss in self.losses if loss.kind not in WITHIN)
            raise ValueError(f"{kinds or 'two towers'} need data.pairs")
        for tower, given in (("image", self.data.texts), ("text", self.data.images)):
            if given and self.towers != tuple(other for other in TOWERS if other != tower):
                kind = "texts" if tower == "image" else "images"
                raise ValueError(f"data.{kind} is for losses that need no {tower} tower; use data.pairs")
        if self.patience is not None and not self.validates:
            raise ValueError("patience needs a validation set: data.validation, or data.hold_out with pairs")
        if set(self.towers) <= set(self.freeze):
            raise ValueError("every tower that a loss needs is frozen: nothing would be learnt")
        if any(loss.kind == "negatives" for loss in self.losses) != (self.data.negatives > 0):
            raise ValueError('the loss "negatives" and data.negatives go together')
        self._check_mix()
        if self.augment.flip == "swap_words" and "image" in self.towers:
            self._check_mirrored()
        return self

    def _check_mirrored(self) -> None:
        """Flipped images and mirrored texts are neither in a file nor what was asked of a teacher before."""
        for teacher in self.teachers:
            needs = {tower for loss in self.losses if loss.teacher == teacher.name for tower in loss.needs}
            if ("image" in needs and not teacher.live) or ("text" in needs and teacher.embeddings):
                raise ValueError(
                    f'augment.flip = "swap_words": teacher {teacher.name!r} would speak of images and texts '
                    "as they were before the flip. Give it model= and live = true, or set flip to "
                    '"unless_directional"'
                )

    def _check_mix(self) -> None:
        if not self.augment.mix:
            return
        if self.towers != ("image",):
            raise ValueError("augment.mix is for losses of the image tower alone: no text fits two pictures")
        if not self.data.cache:
            raise ValueError("augment.mix needs data.cache: pictures of one size")
        past = [teacher.name for teacher in self.teachers if not teacher.live]
        if past:
            raise ValueError(f"augment.mix needs live = true of each teacher; not so: {', '.join(past)}")

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers that are run."""
        return tuple(tower for tower in TOWERS if any(tower in loss.needs for loss in self.losses))

    @property
    def needs_pairs(self) -> bool:
        return len(self.towers) == 2

    @property
    def validates(self) -> bool:
        """Whether there is a validation set; with one tower alone, only if it is named."""
        return self.data.validation is not None or (self.needs_pairs and self.data.hold_out > 0)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; paths in it are as seen from the folder where the command is run.

    TrainingError names every field that is unknown, missing or out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path} can't be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not valid TOML: {error}.") from None
    return checked(document, str(path))


def checked(document: dict[str, Any], what: str) -> Recipe:
    """A recipe from plain values; names of models and contracts are looked up as well."""
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, item['loc'])) or 'recipe'}: {item['msg']}" for item in error.errors()]
        raise TrainingError(f"{what} is no recipe:\n" + "\n".join(lines)) from None
    get_entry(recipe.model)
    get_contract(recipe.contract)
    for teacher in recipe.teachers:
        if teacher.model is not None:
            get_entry(teacher.model)
    return recipe


def differences(old: str, new: Recipe) -> list[str]:
    """Fields in which a recipe differs from one written as JSON before."""
    after = new.model_dump(mode="json")
    try:  # fields that are newer than the run have the values that it was run with
        before = Recipe.model_validate_json(old).model_dump(mode="json")
    except ValidationError:  # a field that there is no more
        before = json.loads(old)
    keys = sorted({*before, *after} - {"expected"})
    return [
        f"{key}: {before.get(key)} then, {after.get(key)} now"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value
