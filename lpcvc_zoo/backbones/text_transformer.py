"""A small text transformer for towers that bring none: sizes here, the layers themselves from open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.entry import Facts, TextSpec

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers


class TextShape(Facts):
    """Width, depth and MLP ratio of a text transformer; heads are 64 wide.

    ``token_rank``: the token embedding is a table of this width and a matrix up to ``width``: of a small
    tower's parameters most are its table (ALBERT's factorised embedding, arXiv:1909.11942).
    """

    width: int
    layers: int
    mlp_ratio: float = 4.0
    token_rank: int | None = None

    def config(self, text: TextSpec) -> dict[str, Any]:
        """open_clip's ``text_cfg`` for this shape under a tower's conventions."""
        return {
            "width": self.width,
            "layers": self.layers,
            "heads": self.width // 64,
            "mlp_ratio": self.mlp_ratio,
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "no_causal_mask": not text.causal,
        }


TINY = TextShape(width=128, layers=2, token_rank=64)
EXTRA_SMALL = TextShape(width=192, layers=4, token_rank=64)
SMALL = TextShape(width=256, layers=4)
MEDIUM = TextShape(width=384, layers=6)


def towers_with_text(vision: Mapping[str, Any], shape: TextShape, text: TextSpec, embed_dim: int) -> Towers:
    """An image tower by open_clip's ``vision_cfg`` beside a text transformer of this shape."""
    from lpcvc_zoo.backbones._towers import clip_towers, factorise

    config = {"embed_dim": embed_dim, "vision_cfg": dict(vision), "text_cfg": shape.config(text)}
    towers = clip_towers(config, text.eot_id)
    if shape.token_rank is not None:
        factorise(towers.text, shape.token_rank)
    return towers
