"""A tower's layers: at which rate each learns, and activations that are computed twice instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_tiny import NAME, registered

from lpcvc_zoo import build
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.training.layers import blocks_of, checkpoint_activations
from lpcvc_zoo.training.recipe import Optimiser, checked
from lpcvc_zoo.training.student import Student, parameter_groups, student_of


@pytest.fixture(scope="module", autouse=True)
def tiny_entries():
    with registered():
        yield


def student(name: str, **fields: Any) -> Student:
    return student_of(checked({"model": name, "data": {"pairs": "x"}, **fields}, "test"))


def rates(learner: Student, decay: float) -> dict[str, float]:
    """Of each parameter by its name within both towers: 1 is the recipe's own."""
    groups = parameter_groups(learner, nn.Module(), Optimiser(layer_decay=decay))
    by_id = {id(item): group.get("lr_scale", 1) for group in groups for item in group["params"]}
    return {name: by_id[id(item)] for name, item in learner.towers.named_parameters()}


@pytest.mark.parametrize(
    ("name", "layers"),  # from the input on; those that are one layer share a line
    [
        pytest.param(
            "efficientvit_m0_text_s",
            [
                ["text.token_embedding.weight", "text.positional_embedding"],
                *[[f"text.transformer.resblocks.{block}.attn.in_proj_weight"] for block in range(4)],
                ["text.ln_final.weight", "text.text_projection", "logit_scale"],
            ],
            id="a text transformer",
        ),
        pytest.param(
            "tinyclip_vit_8m_16_text_3m",
            [
                ["image.conv1.weight", "image.class_embedding", "image.positional_embedding"],
                *[[f"image.transformer.resblocks.{block}.mlp.c_fc.bias"] for block in range(10)],
                ["image.ln_post.weight", "image.proj"],
            ],
            id="open_clip's ViT, as OpenAI's",
        ),
        pytest.param(
            "tinyclip_resnet_19m_text_19m",
            [
                ["image.conv1.weight", "image.conv3.weight", "image.bn3.bias"],
                *[
                    [f"image.layer{stage}.{block}.conv2.weight"]
                    for stage, blocks in enumerate([3, 4, 6, 3], 1)
                    for block in range(blocks)
                ],
                ["image.attnpool.q_proj.weight"],
            ],
            id="open_clip's ResNet, as OpenAI's",
        ),
        pytest.param(
            "mobileclip_s0",
            [
                ["text.token_embedding.weight"],
                ["text.transformer.0.convffn.fc1.weight"],
                *[[f"text.transformer.{block}.attn.in_proj_weight"] for block in range(1, 5)],
                ["text.transformer.5.convffn.fc1.weight"],
                ["text.text_projection"],
            ],
            id="MobileCLIP-S0's text tower",
        ),
        pytest.param(
            "efficientnet_lite0_96_text_xxs",
            [
                ["image.trunk.conv_stem.weight"],
                *[
                    [f"image.trunk.blocks.{stage}.{block}.bn1.weight"]
                    for stage, blocks in enumerate([1, 2, 2, 3, 3, 4, 1])
                    for block in range(blocks)
                ],
                ["image.trunk.classifier.weight"],
            ],
            id="timm's trunk by timm's own map",
        ),
    ],
)
def test_each_layer_learns_slower_than_the_next(name, layers) -> None:
    found = rates(student(name), 0.5)
    for above, names in enumerate(reversed(layers)):
        assert {found[each] for each in names} == {0.5**above}, names


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_every_weight_is_trained_once_and_scales_and_biases_do_not_decay(decay) -> None:
    learner = student("efficientvit_m0_text_s")
    groups = parameter_groups(learner, nn.Linear(2, 2), Optimiser(layer_decay=decay))
    items = [item for group in groups for item in group["params"]]
    assert len(items) == len({*map(id, items)}) == len([*learner.towers.parameters()]) + 2
    assert all((item.ndim > 1) == (group["weight_decay"] > 0) for group in groups for item in group["params"])


def test_rates_that_can_not_fall_are_refused_and_a_plugin_may_tell_its_layers() -> None:
    with pytest.raises(TrainingError, match=r"tell.*layers of tiny's image tower apart.*group_matcher"):
        rates(student(NAME), 0.5)
    assert set(rates(student(NAME), 1).values()) == {1}
    learner = student(NAME)
    for tower in (learner.towers.image, learner.towers.text):
        tower.group_matcher = lambda coarse: {"first": "0|token"}
    found = rates(learner, 0.5)
    assert found["image.0.weight"] == found["text.token_embedding.weight"] == 0.5
    assert found["image.4.weight"] == found["text.projection.weight"] == 1


# Activations computed twice

PIXELS = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[49406, 320, 2368, 49407], [49406, 320, 1929, 49407]])


def gradients(tower: nn.Module, given: Tensor) -> list[Tensor]:
    tower.zero_grad()
    tower(given).square().sum().backward()
    return [item.grad.clone() for item in tower.parameters() if item.grad is not None]


def counting(block: nn.Module) -> Callable[[], int]:
    """How often the block's input was normalised, multiplied or whatever it does, from now on."""
    seen: list[int] = []
    next(part for part in block.modules() if not [*part.children()]).register_forward_hook(
        lambda *_: seen.append(1)
    )
    return lambda: len(seen)


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("efficientvit_m0_text_s", "text", None),
        ("efficientvit_m0_text_s", "image", 224),
        ("efficientnet_lite0_96_text_xxs", "image", 96),
        ("tinyclip_resnet_19m_text_19m", "image", 224),
        ("mobileclip_s0", "text", None),
    ],
)
def test_activations_computed_twice_give_the_same_gradients_and_count_once(name, kind, size) -> None:
    tower = getattr(build(name, fuse=False), f"{kind}_tower").train()
    given = IDS if size is None else nn.functional.interpolate(PIXELS, size=(size, size))
    norms = [part for part in tower.modules() if isinstance(part, nn.BatchNorm2d)]
    fresh = [tensor.clone() for tensor in tower.buffers()]
    made, means, calls = [], [], []
    for twice in (False, True):
        for buffer, value in zip(tower.buffers(), fresh, strict=True):
            buffer.copy_(value)
        if twice:
            checkpoint_activations(tower, kind)
        called = counting(blocks_of(tower)[-1])
        made.append(gradients(tower, given))
        means.append([norm.running_mean.clone() for norm in norms])
        calls.append(called())
        assert {int(norm.num_batches_tracked) for norm in norms} <= {1}
    assert calls[1] == calls[0] + 1
    for plain, again in zip([*made[0], *means[0]], [*made[1], *means[1]], strict=True):
        torch.testing.assert_close(again, plain)


def test_a_tower_that_can_not_compute_twice_is_refused() -> None:
    with pytest.raises(TrainingError, match="checkpointing: tiny's image tower has no blocks"):
        student(NAME, checkpointing=True)
