"""What the zoo knows about a model before building it. No torch import here: listing must be quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lpcvc_zoo.errors import UnknownNameError

NAME_PATTERN = r"^[a-z0-9][a-z0-9_\-]*$"  # no dot: the dot separates name and tag in "name.tag"

# Means and standard deviations for pixels in [0, 1], RGB.
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Facts(BaseModel):
    """Base of the records below: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Preprocessing(Facts):
    """How a checkpoint wants its pixels; applied inside the graph, after the contract's own form.

    ``mean`` and ``std`` are for RGB in [0, 1]; ``interpolation`` is the (antialiased) resize filter.
    """

    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class TextSpec(Facts):
    """The text tower's own conventions; ids are those of CLIP's byte-pair vocabulary.

    ``context_length`` is the most tokens the tower takes, ``pad_id`` what it was trained to see after
    the end-of-text id, ``causal`` whether a token sees only those before it (then pads change nothing).
    """

    context_length: int = Field(default=77, ge=2)
    vocab_size: int = 49408
    sot_id: int = 49406
    eot_id: int = 49407
    pad_id: int = 0
    causal: bool = True


class PublishedScore(Facts):
    """A figure somebody else published, in percent, with where it was published."""

    name: str
    percent: float = Field(ge=0, le=100)
    source: str


def published(
    imagenet: float, flickr: float | None = None, coco: float | None = None, *, source: str
) -> tuple[PublishedScore, ...]:
    """The three figures that most papers give: zero-shot top-1, and image-to-text R@1 (any-hit)."""
    named = {
        "ImageNet-1k zero-shot top-1": imagenet,
        "Flickr30k (1k test) image-to-text R@1": flickr,
        "MS-COCO (5k test) image-to-text R@1": coco,
    }
    return tuple(
        PublishedScore(name=name, percent=percent, source=source)
        for name, percent in named.items()
        if percent is not None
    )


class Pretrained(Facts):
    """One published checkpoint of an entry, by its tag.

    Either ``open_clip`` names an (architecture, tag) pair that open_clip resolves, or ``repo`` and
    ``file`` name a file on the Hugging Face hub, or ``url`` a plain download, or ``shipped`` files that come
    with this package and make up the checkpoint together (a tower may be shared by several entries).
    """

    tag: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    open_clip: tuple[str, str] | None = None
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    url: str | None = None
    shipped: tuple[str, ...] | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,64}$")
    size_bytes: int | None = None
    preprocessing: Preprocessing
    licence: str
    training_data: str
    paper: str
    scores: tuple[PublishedScore, ...] = ()

    @model_validator(mode="after")
    def _has_one_source(self) -> Pretrained:
        sources = [self.open_clip, self.repo, self.url, self.shipped]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("name exactly one source: open_clip=, repo= (with file=), url= or shipped=")
        if (self.repo is None) != (self.file is None):
            raise ValueError("repo= and file= go together")
        return self


Costs = tuple[int, int, float, float]


def costs(measured: Costs) -> dict[str, float]:
    """An entry's four cost fields from a tuple: parameters of both towers, then GMACs of both."""
    return dict(zip(("image_params", "text_params", "image_gmacs", "text_gmacs"), measured, strict=True))


class Entry(Facts):
    """One architecture of the zoo.

    ``make`` builds the bare towers with torch's current random state. Parameter counts are of the
    unfused towers; GMACs are multiply-accumulates (10^9) of one image at ``image_size`` and of one
    text at ``text.context_length`` tokens, without in-graph preprocessing. A plugin may leave them out.
    ``text_layers``: transformer layers of the text tower; None where it is no stack of like layers, or where
    only a checkpoint tells: a sweep over text depths takes such a tower whole.
    """

    name: str = Field(pattern=NAME_PATTERN)
    family: str
    # Returns model.Towers; typed loosely because pydantic would import it, and torch with it.
    make: Callable[[], Any] = Field(exclude=True, repr=False)
    # Builds towers for the shapes of a checkpoint, by name, where an architecture's sizes stand only there.
    make_for: Callable[[Mapping[str, tuple[int, ...]]], Any] | None = Field(
        default=None, exclude=True, repr=False
    )
    image_size: int = Field(ge=16)
    embed_dim: int = Field(ge=1)
    text: TextSpec = TextSpec()
    text_layers: int | None = Field(default=None, ge=1)
    preprocessing: Preprocessing = Preprocessing()
    pretrained: tuple[Pretrained, ...] = ()
    licence: str
    paper: str
    image_params: int | None = None
    text_params: int | None = None
    image_gmacs: float | None = None
    text_gmacs: float | None = None
    default_sweep: bool = True
    quick: bool = False  # among the few small ones that `--quick` runs
    notes: str = ""

    @model_validator(mode="after")
    def _tags_are_unique(self) -> Entry:
        tags = [p.tag for p in self.pretrained]
        if len(set(tags)) != len(tags):
            raise ValueError(f"{self.name}: two pretrained records share a tag: {tags}")
        return self

    @property
    def cost(self) -> float:
        """GMACs of both towers together, for "cheapest first"; unknown counts as most expensive."""
        if self.image_gmacs is None or self.text_gmacs is None:
            return float("inf")
        return self.image_gmacs + self.text_gmacs

    def checkpoint(self, tag: str) -> Pretrained:
        """The published checkpoint of that tag; UnknownNameError lists the tags there are."""
        for record in self.pretrained:
            if record.tag == tag:
                return record
        raise UnknownNameError(f"checkpoint tag of {self.name}", tag, [p.tag for p in self.pretrained])
