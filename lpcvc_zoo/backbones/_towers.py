"""Towers as open_clip builds them, with the text side pooled in a way that an NPU can run.

A family imports this file inside ``make``: it needs torch and open_clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import open_clip
from torch import Tensor, nn

from lpcvc_zoo.model import Towers

if TYPE_CHECKING:
    from lpcvc_zoo.backbones.text_transformer import TextShape
    from lpcvc_zoo.entry import TextSpec

# Added to an attention logit, this leaves a weight of e^-50 or so: nothing in fp32 and in fp16. Minus
# infinity gives NaN in fp16, and a far larger value would waste the range of a quantised addition. From
# e^-87 to e^-104 weights are denormal, which made the product with the values ten times slower on a CPU.
MASKED = -50.0


class TextTower(nn.Module):
    """open_clip's text transformer; ids int32 ``[N, L]`` -> ``[N, D]``, ``L`` up to its context length.

    The causal mask is finite, and pooling multiplies by a one-hot of the end-of-text id, which must stand
    exactly once in a row: so pads must be another id.
    """

    attn_mask: Tensor | None

    def __init__(self, built: nn.Module, eot_id: int) -> None:
        super().__init__()
        self.eot_id = eot_id
        self.token_embedding: nn.Module = cast(nn.Embedding, built.token_embedding)
        self.positional_embedding = cast(nn.Parameter, built.positional_embedding)
        self.transformer = cast(nn.Module, built.transformer)
        self.ln_final = cast(nn.Module, built.ln_final)
        self.text_projection = cast(nn.Parameter, built.text_projection)
        mask = built.attn_mask
        self.register_buffer(
            "attn_mask", mask.clamp(min=MASKED) if isinstance(mask, Tensor) else None, persistent=False
        )

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        hidden = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        hidden = self.transformer(hidden, attn_mask=mask)
        pooled = self.ln_final(pool_at_eot(hidden, ids, self.eot_id))
        return cast(Tensor, pooled @ self.text_projection)


def pool_at_eot(hidden: Tensor, ids: Tensor, eot_id: int) -> Tensor:
    """The hidden state ``[N, C]`` at the end-of-text id: one product, no ArgMax and no Gather."""
    at_eot = (ids == eot_id).to(hidden.dtype).unsqueeze(1)
    return (at_eot @ hidden).squeeze(1)


def small_text_tower(shape: TextShape, spec: TextSpec, embed_dim: int) -> TextTower:
    """A text transformer alone, for an image tower that open_clip does not have."""
    tower = TextTower(
        open_clip.transformer.TextTransformer(**shape.config(spec), output_dim=embed_dim), spec.eot_id
    )
    if shape.token_rank is not None:
        factorise(tower, shape.token_rank)
    return tower


def factorise(tower: nn.Module, rank: int) -> None:
    """Make a text tower's token embedding a table of width ``rank`` and a matrix, in place; both are new."""
    whole = cast(nn.Embedding, tower.token_embedding)
    vocab_size, width = whole.weight.shape
    table, up = nn.Embedding(vocab_size, rank), nn.Linear(rank, width, bias=False)
    nn.init.normal_(table.weight)
    nn.init.normal_(up.weight, std=0.02 * rank**-0.5)  # together as large as open_clip's table
    tower.token_embedding = nn.Sequential(table, up)


def clip_towers(config: Mapping[str, Any], eot_id: int) -> Towers:
    """Both towers of an open_clip model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``)."""
    parts = {key: value for key, value in config.items() if key != "custom_text"}
    clip = open_clip.CustomTextCLIP(**parts)
    return Towers(clip.visual, TextTower(clip.text, eot_id))


def clip_towers_of(architecture: str, eot_id: int) -> Towers:
    """Both towers of a named open_clip architecture, such as "ViT-B-32-quickgelu"."""
    return clip_towers(open_clip.get_model_config(architecture), eot_id)
