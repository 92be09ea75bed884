"""Folding BatchNorm: only where one convolution feeds one norm and nothing else, whatever the names say."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyText
from torch import Tensor, nn

from lpcvc_zoo import fuse as fuse_room
from lpcvc_zoo.backbones._mct import HybridTextTower
from lpcvc_zoo.fuse import fold_batch_norms, fuse
from lpcvc_zoo.model import Folding, Towers
from lpcvc_zoo.registry import build

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


def two_convolutions() -> nn.Module:
    torch.manual_seed(1)
    first, second = (nn.Sequential(nn.Conv2d(3, 3, 3), norm(3), nn.ReLU()) for _ in range(2))
    return nn.Sequential(first, second, nn.Flatten())


def hybrid_text() -> nn.Module:
    """A text tower with BatchNorms, whose every weight matters."""
    torch.manual_seed(1)
    tower = HybridTextTower(
        width=16, heads=1, layers=1, embed_dim=8, context_length=12, vocab_size=49408, eot_id=49407
    )
    for part in tower.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.load_state_dict(norm(16).state_dict())
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower


def folding(
    monkeypatch: pytest.MonkeyPatch, image: nn.Module, text: nn.Module, broken: bool
) -> dict[str, Folding]:
    """What ``fuse`` says of these towers, also where it leaves norms out instead of folding them."""
    if broken:
        monkeypatch.setattr(fuse_room, "fuse_conv_bn_eval", lambda conv, norm: conv)
    return fuse(Towers(image, text), 8, 12).foldings


@pytest.mark.parametrize("tower", ["image", "text"])
def test_what_folding_did_is_counted_and_measured(monkeypatch: pytest.MonkeyPatch, tower: str) -> None:
    def towers() -> tuple[nn.Module, nn.Module]:
        return (two_convolutions(), TinyText()) if tower == "image" else (nn.Flatten(), hybrid_text())

    (name, done), *others = folding(monkeypatch, *towers(), broken=False).items()
    assert (name, others) == (tower, [])  # nothing is said of a tower without norms
    assert done.norms == (2 if tower == "image" else 8)
    assert done.operators_before - done.operators_after >= done.norms
    if tower == "image":  # convolution, norm and ReLU, twice, and a view
        assert (done.operators_before, done.operators_after) == (7, 5)
    assert done.cosine == pytest.approx(1, abs=1e-9)
    assert folding(monkeypatch, *towers(), broken=True)[tower].cosine < 0.999


def test_a_tower_without_norms_is_not_run() -> None:
    class Sleeping(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            raise AssertionError

    assert fuse(Towers(Sleeping(), Sleeping()), 8, 12).foldings == {}


def test_a_model_knows_what_was_folded_when_it_was_built() -> None:
    name = "efficientvit_m0_text_s"
    assert build(name, fuse=False).foldings == {}
    (found,) = build(name).foldings.items()
    assert found[0] == "image"
    assert found[1].norms > 100
    assert found[1].cosine > 0.999999
