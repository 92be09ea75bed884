"""BatchNorm where a batch is in several processes, or goes through a tower twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def unseen(module: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics stay as they are while the block runs."""
    norms = _norms(module)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def shared_statistics(tower: nn.Module, device: torch.device) -> nn.Module:
    """The tower with BatchNorm's statistics taken over all processes; torch's own way is for GPUs alone."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's would lose the activations in timm's norms

        converted: nn.Module = convert_sync_batchnorm(tower)
        return converted
    for norm in _norms(tower):
        norm.forward = partial(_over_all, norm)  # type: ignore[method-assign]
    return tower


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


class _Sum(torch.autograd.Function):
    """The sum over all processes, and of the gradients that they have at it."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _over_all(norm: _BatchNorm, given: Tensor) -> Tensor:
    """What ``norm`` gives for this process's part of a batch that is normalised as a whole."""
    if not norm.training:
        result: Tensor = type(norm).forward(norm, given)
        return result
    values = given.float()
    others = [axis for axis in range(given.ndim) if axis != 1]
    each = [1, -1] + [1] * (given.ndim - 2)
    own = values.new_tensor([values.numel() // values.shape[1]])
    sums = _sum(torch.cat([values.sum(others), own]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    apart = values - mean.view(each)  # the variance from these, not from squares that nearly cancel
    variance = _sum(apart.square().sum(others)) / count
    _keep(norm, mean.detach(), (variance * count / (count - 1)).detach())
    normal = apart * (variance + norm.eps).rsqrt().view(each)
    if norm.affine:
        normal = normal * norm.weight.view(each) + norm.bias.view(each)
    normal = normal.to(given.dtype)
    for name in ("drop", "act"):  # parts of timm's norms
        part = getattr(norm, name, None)
        normal = normal if part is None else part(normal)
    return normal


def _keep(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total
