"""Apple's ``mobileclip_*.pt``: image towers in Apple's own FastViT and ViT names, text in CVNets' names.

Both the training form and the one that Apple's ``reparameterize_model`` leaves, in which each group of
parallel branches is one ``reparam_conv``, become timm's names of the same form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IMAGE, TEXT = "image_encoder.model.", "text_encoder."
Rules = tuple[tuple[str, str], ...]  # regular expressions and what they become, in order

LAYER: Rules = (
    (r"\.pre_norm_mha\.0\.", ".ln_1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.in_proj_"),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.out_proj."),
    (r"\.pre_norm_ffn\.0\.", ".ln_2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.c_fc."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.c_proj."),
)
TEXT_RULES: Rules = (
    *LAYER,
    (r"^embedding_layer\.", "token_embedding."),
    (r"^positional_embedding\.pos_embed\.pos_embed$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^projection_layer$", "text_projection"),
)
VIT_RULES: Rules = (
    (r"^patch_emb\.(\d+)\.block\.", r"patch_embed.backbone.\1."),
    (r"^(patch_embed\.backbone\.\d+)\.norm\.", r"\1.bn."),
    (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
    (r"^post_transformer_norm\.", "norm."),
    (r"^transformer\.", "blocks."),
    (r"\.pre_norm_mha\.0\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.proj."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
)
# Where timm's own conversion, written for the training form, does not know the other one. Apple's conditional
# positional encoding is named "pe" in the first form, and loses even that name in the second.
FOLDED_FIRST: Rules = ((r"^(network\.\d+)\.reparam_conv\.", r"\1.pe_reparam_conv."),)
FOLDED_LAST: Rules = ((r"\.pos_enc_reparam_conv\.", ".reparam_conv."), (r"\.lkb_reparam\.", ".reparam_conv."))


def from_apple(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apple's tensors under the entries' own names; what belongs to neither tower keeps its name."""
    image = {name.removeprefix(IMAGE): tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
    text = {name.removeprefix(TEXT): tensor for name, tensor in tensors.items() if name.startswith(TEXT)}
    trunk = _vit(image) if any(name.startswith("patch_emb.") for name in image) else _fastvit(image)
    state = {
        name: tensor for name, tensor in tensors.items() if not name.startswith((IMAGE, TEXT))
    }  # logit_scale
    state |= {f"image.trunk.{name}": tensor for name, tensor in trunk.items()}
    state |= {f"text.{name}": tensor for name, tensor in _text(text).items()}
    return state


def _fastvit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from timm.models.fastvit import checkpoint_filter_fn
    from torch import nn

    # All that timm asks of the model is whether its head is linear, which takes Apple's bare projection.
    like = SimpleNamespace(head=SimpleNamespace(fc=nn.Linear(1, 1)))
    converted: dict[str, Tensor] = checkpoint_filter_fn(_renamed(tensors, FOLDED_FIRST), like)
    return _renamed(converted, FOLDED_LAST)


def _vit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = _renamed(tensors, VIT_RULES)
    if "pos_embed" in state:
        state["pos_embed"] = state["pos_embed"].squeeze(0)
    if "classifier.proj" in state:
        projection = state.pop("classifier.proj")
        state["head.weight"] = projection.mT
        state["head.bias"] = projection.new_zeros(projection.shape[1])
    return state


def _text(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = _renamed(tensors, TEXT_RULES)
    if "positional_embedding" in state:
        state["positional_embedding"] = state["positional_embedding"].flatten(0, -2)
    # The hybrid tower (S0) is a plain list of layers; the others are open_clip's Transformer.
    if any(".token_mixer." in name for name in state):
        return state
    return _renamed(state, ((r"^transformer\.", "transformer.resblocks."),))


def _renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    return state
