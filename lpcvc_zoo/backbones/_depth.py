"""A text tower of fewer layers: the first ones stay, and what comes after the last stays as it is."""

from __future__ import annotations

from typing import Any

from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.model import Towers, layers_of


def set_text_depth(towers: Towers, depth: int, *, what: str) -> None:
    """Keep the first ``depth`` layers of the text tower, in place; ContractError where it can't be."""
    layers = layers_of(towers.text)
    if layers is None:
        raise ContractError(
            "text_depth",
            f"no depth for {what}, whose text tower is no stack of like layers",
            str(depth),
            "Leave it out, or take a model with a plain text transformer.",
        )
    if not 1 <= depth <= len(layers):
        raise ContractError("text_depth", f"1 to {len(layers)} layers", str(depth))
    text: Any = towers.text
    text.transformer.resblocks = layers[:depth]
