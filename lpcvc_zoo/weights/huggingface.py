"""transformers' ``CLIPModel``: queries, keys and values apart, projections transposed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RULES = (
    (r"^vision_model\.", "image."),
    (r"^text_model\.", "text."),
    (r"\.encoder\.layers\.", ".transformer.resblocks."),
    (r"\.embeddings\.class_embedding$", ".class_embedding"),
    (r"\.embeddings\.patch_embedding\.", ".conv1."),
    (r"\.embeddings\.token_embedding\.", ".token_embedding."),
    (r"\.embeddings\.position_embedding\.weight$", ".positional_embedding"),
    (r"^image\.pre_layrnorm\.", "image.ln_pre."),  # the typing error is transformers' own
    (r"^image\.post_layernorm\.", "image.ln_post."),
    (r"^text\.final_layer_norm\.", "text.ln_final."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
PROJECTIONS = {"visual_projection.weight": "image.proj", "text_projection.weight": "text.text_projection"}


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIPModel's tensors under the entries' own names. ``position_ids``, which only count, are dropped."""
    import torch

    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in PROJECTIONS:
            state[PROJECTIONS[name]] = tensor.mT
        elif not name.endswith(".position_ids"):
            for pattern, replacement in RULES:
                name = re.sub(pattern, replacement, name)
            state[name] = tensor
    for query in [name for name in state if ".self_attn.q_proj." in name]:
        parts = [query.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in state for part in parts):
            packed = query.replace(".self_attn.q_proj.", ".attn.in_proj_")
            state[packed] = torch.cat([state.pop(part) for part in parts])
    return state
