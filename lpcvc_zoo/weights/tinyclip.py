"""TinyCLIP's own files: CLIP's names below the authors' wrappers, with or without the masks of pruning.

Masked files hold the whole network and, per tower, three tensors of logits ("loga") that say what the masks
keep: channels of the residual stream, attention heads, channels of each MLP. From "TinyCLIP: CLIP
Distillation via Affinity Mimicking and Weight Inheritance" (Wu et al., ICCV 2023), whose masks follow
"Learning Sparse Neural Networks through L0 Regularization" (Louizos et al., ICLR 2018).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = re.compile(r"^_?(image_encoder|text_encoder|logit_scale)(_without_ddp)?\.")
DISTRIBUTED = re.compile(r"(^|(?<=\.))module\.")  # DistributedDataParallel around each encoder
# Of the stretched binary concrete distribution that the masks were trained with.
LOW, HIGH, TEMPERATURE, SHARPNESS = -0.1, 1.1, 2 / 3, 0.8
BLOCK = re.compile(r"(.*resblocks\.)(\d+)\.(.+)")


def from_tinyclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TinyCLIP's tensors under CLIP's flat names, masks applied: what they remove is gone."""
    image: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    part_of = {"image_encoder": image, "text_encoder": text}
    for given, tensor in tensors.items():
        wrapped = DISTRIBUTED.sub("", given)
        match = WRAPPERS.match(wrapped)
        part = part_of.get(match[1], rest) if match else rest
        name = WRAPPERS.sub("", wrapped)
        if name in part:  # under two wrappers at once: left for the check of names to report
            part, name = rest, given
        part[name] = tensor
    return {**rest, **with_empty_attention(masked(image)), **with_empty_attention(masked(text))}


def masked(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower as its masks leave it, computing what it computes under them; itself if it has none."""
    logits = {
        name.split(".")[1].removesuffix("_loga"): tensor.float()
        for name, tensor in tower.items()
        if re.fullmatch(r"l0_module\.(hidden|heads|intermediate)_loga", name)
    }
    if len(logits) < 3:
        return dict(tower)
    hidden = keep(logits["hidden"])
    stays = hidden.nonzero().flatten()
    state: dict[str, Tensor] = {}
    for name, tensor in tower.items():
        if name.startswith("l0_module."):
            continue
        if not tensor.is_floating_point():
            state[name] = tensor  # left for the check of kinds to report
            continue
        block = BLOCK.fullmatch(name)
        if block:
            layer = int(block[2])
            state[name] = _masked_in_block(
                block[3], tensor.float(), hidden, keep(logits["heads"][layer]),
                keep(logits["intermediate"][layer]),
            )  # fmt: skip
        elif name.endswith(("proj", "text_projection")) or "ln_" in name:
            state[name] = tensor[stays]
        elif name.endswith("conv1.weight"):
            state[name] = (tensor.float() * hidden.view(-1, 1, 1, 1))[stays]
        elif name.endswith(("_embedding", "token_embedding.weight")):
            state[name] = (tensor.float() * hidden)[..., stays]
        else:
            state[name] = tensor
    return state


def keep(logits: Tensor) -> Tensor:
    """The mask in evaluation, 0 to 1 for each of ``logits``: as many zeros as the distribution expects."""
    import torch

    mask = torch.sigmoid(logits / TEMPERATURE * SHARPNESS)
    at_zero = (0 - LOW) / (HIGH - LOW)
    closed = torch.sigmoid((math.log(at_zero) - math.log(1 - at_zero)) * TEMPERATURE - logits)
    zeros = round(closed.clamp(1e-6, 1 - 1e-6).sum().item())
    mask[torch.topk(mask, zeros, largest=False).indices] = 0
    return mask


def _masked_in_block(part: str, tensor: Tensor, hidden: Tensor, heads: Tensor, inner: Tensor) -> Tensor:
    """One tensor of a residual block: rows and columns that the masks close removed, the rest scaled.

    Scales go to the layers that write: into the heads' and the MLP's channels they would have to pass
    a softmax or a GELU.
    """
    stays, inside = hidden.nonzero().flatten(), inner.nonzero().flatten()
    left = heads.nonzero().flatten()
    if part == "attn.in_proj_weight":
        return tensor.reshape(3, len(heads), -1, len(hidden))[:, left][..., stays].flatten(0, 2)
    if part == "attn.in_proj_bias":
        return tensor.reshape(3, len(heads), -1)[:, left].flatten()
    if part == "attn.out_proj.weight":
        by_head = (tensor * hidden.view(-1, 1)).reshape(len(hidden), len(heads), -1) * heads.view(-1, 1)
        return by_head[stays][:, left].flatten(1)
    if part == "mlp.c_fc.weight":
        return tensor[inside][:, stays]
    if part == "mlp.c_fc.bias":
        return tensor[inside]
    if part == "mlp.c_proj.weight":
        return (tensor * hidden.view(-1, 1) * inner)[stays][:, inside]
    if part in ("attn.out_proj.bias", "mlp.c_proj.bias"):
        return (tensor * hidden)[stays]
    if part.startswith(("ln_1.", "ln_2.")):
        return tensor[stays]
    return tensor


def with_empty_attention(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower with an attention of no heads and no bias, which adds nothing, where pruning left none.

    The authors leave a layer's attention and its norm out of the file once all its heads are gone.
    """
    state = dict(tower)
    for name, tensor in tower.items():
        block = BLOCK.fullmatch(name)
        if not block or block[3] != "ln_2.weight":
            continue
        width, prefix = len(tensor), f"{block[1]}{block[2]}."
        if not any(other.startswith((f"{prefix}attn.", f"{prefix}ln_1.")) for other in tower):
            state[f"{prefix}ln_1.weight"] = tensor.new_ones(width)
            state[f"{prefix}ln_1.bias"] = tensor.new_zeros(width)
            state[f"{prefix}attn.in_proj_weight"] = tensor.new_zeros(0, width)
            state[f"{prefix}attn.in_proj_bias"] = tensor.new_zeros(0)
            state[f"{prefix}attn.out_proj.weight"] = tensor.new_zeros(width, 0)
            state[f"{prefix}attn.out_proj.bias"] = tensor.new_zeros(width)
    return state
