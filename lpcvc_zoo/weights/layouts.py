"""Checkpoints in every published layout, in the entry's own names: ``image.*``, ``text.*``, ``logit_scale``.

A converter renames what it knows and passes on the rest under its own name; ``fit.fit`` then holds the result
against the towers, so that nothing is lost and nothing slips through unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.weights.apple import from_apple
from lpcvc_zoo.weights.huggingface import from_hugging_face
from lpcvc_zoo.weights.tinyclip import from_tinyclip

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["lpcvc_zoo", "Apple MobileCLIP", "Hugging Face CLIPModel", "TinyCLIP", "open_clip", "CLIP"]

# What a layout's names begin with: the first layout whose prefixes all occur is the one. CLIP's is OpenAI's,
# and open_clip's where the text tower is built in; "open_clip" is its layout for any other text tower.
SIGNS: dict[Layout, tuple[str, ...]] = {
    "Apple MobileCLIP": ("image_encoder.model.", "text_encoder."),
    "Hugging Face CLIPModel": ("vision_model.", "text_model."),
    "lpcvc_zoo": ("image.", "text."),
    "open_clip": ("visual.", "text."),
    "CLIP": ("visual.", "transformer."),
}
TINYCLIP_SIGNS = ("_image_encoder.", "image_encoder_without_ddp.")
SAVED_ENCODER = re.compile(r"(image|text)_encoder\.tower\.")

TEXT_PARTS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
# Facts about the network that OpenAI keeps as tensors, and the causal mask, which towers make themselves.
NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})


def to_own_names(tensors: Mapping[str, Tensor], *, what: str) -> dict[str, Tensor]:
    """The checkpoint under the entries' own names, not yet held against any towers.

    Names that its layout does not have are kept as they are. WeightsError for an unknown layout, and where
    a tensor can't be what its name says.
    """
    layout = detect(tensors, what=what)
    try:
        return _CONVERTERS[layout](tensors)
    except (RuntimeError, LookupError, ValueError) as error:  # torch's for shapes that can't be taken apart
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"{what} has the names of {layout}, but not its shapes ({reason}). It is damaged, or of another "
            "architecture."
        ) from error


def detect(names: Iterable[str], *, what: str) -> Layout:
    """Which layout these names are of; WeightsError that shows some of them if of none."""
    names = list(names)
    if any(name.startswith(TINYCLIP_SIGNS) for name in names):
        return "TinyCLIP"
    if any(SAVED_ENCODER.match(name) for name in names):
        return "lpcvc_zoo"
    for layout, prefixes in SIGNS.items():
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return layout
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    known = ", ".join([*SIGNS, "TinyCLIP"])
    raise WeightsError(
        f"{what} is in no known layout of a dual encoder ({known}). It has {len(names)} tensors: {shown}. "
        "A checkpoint must hold both towers; weights of an image classifier alone don't make one."
    )


def from_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's own layout: the image tower under ``visual.``, the text tower's parts at the top."""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] in NOT_WEIGHTS:
            continue
        if name.startswith("visual."):
            name = "image." + name.removeprefix("visual.")
        elif name.startswith(TEXT_PARTS):
            name = "text." + name
        state[name] = tensor
    return state


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's layout with ``visual.`` and ``text.``, which the entries' own follows."""
    return {
        re.sub(r"^visual\.", "image.", name): tensor
        for name, tensor in tensors.items()
        if name.rpartition(".")[2] not in NOT_WEIGHTS
    }


def from_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our own: a state dict of the towers, or of a whole DualEncoder."""
    return {SAVED_ENCODER.sub(r"\1.", name): tensor for name, tensor in tensors.items()}


_CONVERTERS: dict[Layout, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "lpcvc_zoo": from_own,
    "Apple MobileCLIP": from_apple,
    "Hugging Face CLIPModel": from_hugging_face,
    "TinyCLIP": lambda tensors: from_clip(from_tinyclip(tensors)),
    "open_clip": from_open_clip,
    "CLIP": from_clip,
}
