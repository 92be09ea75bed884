"""Folding BatchNorm: only where one convolution feeds one norm and nothing else, whatever the names say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lpcvc_zoo.fuse import fold_batch_norms

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def norm(width: int = 4) -> nn.BatchNorm2d:
    """A BatchNorm that does something: a fresh one is the identity and would hide every mistake."""
    made = nn.BatchNorm2d(width)
    assert made.running_mean is not None
    assert made.running_var is not None
    with torch.no_grad():
        made.running_mean.uniform_(-1, 1)
        made.running_var.uniform_(0.5, 2)
        made.weight.uniform_(0.5, 1.5)
        made.bias.uniform_(-1, 1)
    return made


class Plain(nn.Module):
    """Defined norm first, so that going by the order of definition would fail."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = norm(), nn.Conv2d(3, 4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(pixels))
        return result


class UsedTwice(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.conv(pixels)
        return self.norm(hidden) + hidden


class AlsoConcatenated(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.conv(pixels)
        return torch.cat([self.norm(hidden), hidden], dim=1)


class OneConvTwoNorms(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = norm()

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.norm(self.conv(pixels)), self.other(self.conv(-pixels))])


class TwoConvsOneNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.norm(self.conv(pixels)), self.norm(self.other(pixels))])


class StandardisedConv(nn.Conv2d):
    """Undoes any gain that is folded into its weights."""

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.conv2d(pixels, self.weight / self.weight.std(), self.bias)


class Standardised(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.conv = StandardisedConv(3, 4, 3)


class NormFirst(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = norm(3)

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = self.conv(self.norm(pixels))
        return result


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (Plain, 0),
        (UsedTwice, 1),
        (AlsoConcatenated, 1),
        (OneConvTwoNorms, 2),
        (TwoConvsOneNorm, 1),
        (Standardised, 1),
        (NormFirst, 1),
    ],
)
def test_a_norm_is_folded_only_where_that_changes_nothing(make: type[nn.Module], left: int) -> None:
    torch.manual_seed(1)
    module = make().eval()
    with torch.no_grad():
        before = module(EXAMPLE)
        fold_batch_norms(module, EXAMPLE[:1])
        after = module(EXAMPLE)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in module.modules()) == left


def test_the_activation_inside_a_timm_norm_stays() -> None:
    from timm.layers import BatchNormAct2d

    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4)).eval()
    with torch.no_grad():
        before = module(EXAMPLE)
        fold_batch_norms(module, EXAMPLE[:1])
        torch.testing.assert_close(module(EXAMPLE), before)
    assert before.min() == 0
    assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
