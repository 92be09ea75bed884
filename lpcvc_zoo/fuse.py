"""Training-time structure folded away: parallel branches into one convolution, BatchNorm into weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.model import Folding, Towers

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def fuse(towers: Towers, image_size: int, context_length: int) -> Towers:
    """Fold every reparameterisable branch (RepVGG, MobileOne, RepMixer) and every BatchNorm, in place.

    The towers are put into eval mode, compute the same as before, and can't be trained from there. How well
    that was kept is measured on one sample, while both forms are at hand, and noted in ``towers.foldings``.
    """
    towers.eval()
    for name, sample in (("image", _sample_image(image_size)), ("text", _sample_text(context_length))):
        tower = getattr(towers, name)
        norms = _norms(tower)
        before = _run(tower, sample) if norms else None
        tower = _folded(tower, sample)
        setattr(towers, name, tower)
        if before is not None and (folded := norms - _norms(tower)):
            after = _run(tower, sample)
            towers.foldings[name] = Folding(folded, before[1], after[1], _cosine(before[0], after[0]))
    return towers


def _folded(tower: nn.Module, sample: Tensor) -> nn.Module:
    from timm.utils.model import reparameterize_model

    with torch.random.fork_rng(devices=[]):  # the new convolutions are born with random weights
        if not is_reparameterised(tower):  # timm's RepMixer can't be folded twice
            tower = reparameterize_model(tower, inplace=True).eval()
        fold_pre_norms(tower)
        if _norms(tower):  # running a tower takes longer than all the rest
            fold_batch_norms(tower, sample)
    return tower


def _sample_image(size: int) -> Tensor:
    """Normalised pixels of noise, the same every time."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _sample_text(length: int) -> Tensor:
    """A text of random tokens, the same every time; ends as every text does: a tower may pool there."""
    spec = TextSpec()
    tokens = torch.randint(1, spec.sot_id, (1, length), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = spec.sot_id, spec.eot_id
    return tokens.to(torch.int32)


def _norms(tower: nn.Module) -> int:
    return sum(isinstance(part, _NORMS) for part in tower.modules())


def _run(tower: nn.Module, sample: Tensor) -> tuple[Tensor, int]:
    """The sample's embedding, and how many operators torch ran for it."""
    uses = _Uses()
    with uses:
        embedding = tower(sample)
    return embedding, uses.operators


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0))


def is_reparameterised(tower: nn.Module) -> bool:
    """Whether its branches are one convolution already, as in a checkpoint published for inference."""
    return any(getattr(part, "reparam_conv", None) is not None for part in tower.modules())


def fold_pre_norms(module: nn.Module) -> None:
    """Fold the BatchNorm before FastViT's self-attention into the projection to queries, keys and values."""
    from timm.models.fastvit import AttentionBlock

    for block in module.modules():
        if not isinstance(block, AttentionBlock) or not isinstance(block.norm, nn.BatchNorm2d):
            continue
        gain, shift = affine(block.norm)
        qkv = block.token_mixer.qkv
        bias = qkv.weight @ shift
        qkv.bias = nn.Parameter(bias if qkv.bias is None else bias + qkv.bias)
        qkv.weight.mul_(gain)
        block.norm = nn.Identity()


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The gain and shift per channel that a BatchNorm applies in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return gain, norm.bias - gain * norm.running_mean


def fold_batch_norms(module: nn.Module, example: Tensor) -> None:
    """Fold each BatchNorm into the convolution whose output it, and nothing else, was seen to take.

    Which convolution feeds which norm is observed while running ``example``: names and the order of
    definition would only be guesses. Layers that run more than once (shared ones) stay as they are, and so
    do convolutions of a derived class, which may change their weights as they run; timm's with TensorFlow's
    padding does not.
    """
    from timm.layers import Conv2dSame

    foldable = (nn.Conv2d, Conv2dSame)
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # keeping the tensor keeps its id from being reused
    pairs: dict[nn.Module, tuple[nn.Conv2d, int]] = {}
    runs: Counter[nn.Module] = Counter()
    uses = _Uses()

    def on_conv(conv: nn.Module, _: Any, output: Tensor) -> None:
        runs[conv] += 1
        made[id(output)] = (cast(nn.Conv2d, conv), output)
        uses.count[id(output)] = 0  # an earlier tensor, gone by now, may have had the same id

    def on_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[norm] += 1
        if id(inputs[0]) in made:
            pairs[norm] = (made[id(inputs[0])][0], id(inputs[0]))

    handles = [
        part.register_forward_hook(on_conv)
        if type(part) in foldable
        else part.register_forward_pre_hook(on_norm)
        for part in module.modules()
        if type(part) in foldable or isinstance(part, nn.BatchNorm2d)
    ]
    try:
        with uses:
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    for norm, (conv, output) in pairs.items():
        if uses.count[output] == runs[conv] == runs[norm] == 1:
            _replace(module, conv, fuse_conv_bn_eval(conv, cast(nn.BatchNorm2d, norm)))
            _replace(module, norm, _left_of(norm))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that take tensors: all of them, and those that took each one, by the tensor's id."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs))  # cat and stack take their tensors in a list
        taken = {id(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        self.operators += bool(taken)
        self.count.update(taken)
        return func(*args, **(kwargs or {}))


def _left_of(norm: nn.Module) -> nn.Module:
    """What stays of a norm: timm's BatchNormAct2d holds an activation."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in root.modules():
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
