"""The model that learns: its towers under a contract; what of them is trained, and at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.fuse import is_reparameterised
from lpcvc_zoo.model import DualEncoder, Towers, unit_length
from lpcvc_zoo.registry import build
from lpcvc_zoo.training.batches import Batch
from lpcvc_zoo.training.layers import Layered, checkpoint_activations
from lpcvc_zoo.training.losses import Embedded
from lpcvc_zoo.training.pixels import CachedPixelAdapter
from lpcvc_zoo.training.recipe import CONTRASTIVE, Optimiser, Recipe

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Student(nn.Module):
    """An entry's unfused towers, run as the device would run them, from a batch's pixels and ids."""

    def __init__(self, model: DualEncoder, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self.towers = Towers(model.image_tower, model.text_tower)
        # 0 in a file stands for none learnt: contrasted at a scale of 1, fine-tuning would stay there
        contrasts = any(loss.kind in CONTRASTIVE for loss in recipe.losses)
        self.scale_is_new = contrasts and model.logit_scale.item() == 0
        if self.scale_is_new:
            with torch.no_grad():
                model.logit_scale.copy_(self.towers.logit_scale)  # what towers begin with
        self.towers.logit_scale = model.logit_scale
        self.order = _order_of_axes(self.towers.image)
        self.towers.image.to(memory_format=self.order)
        adapter = model.image_encoder.adapter
        self.pixels: nn.Module = (
            CachedPixelAdapter(adapter, model.contract.image.high) if recipe.data.cache else adapter
        )
        for tower in TOWERS:
            if not self.learns(tower):
                self.tower(tower).requires_grad_(False)

    def tower(self, tower: Tower) -> nn.Module:
        return self.towers.image if tower == "image" else self.towers.text

    def learns(self, tower: Tower) -> bool:
        return tower in self.recipe.towers and tower not in self.recipe.freeze

    def ready(self) -> None:
        """Learning towers in training mode; the others as on the device."""
        for tower in TOWERS:
            self.tower(tower).train(self.learns(tower))

    def forward(self, batch: Batch) -> Embedded:
        """Embeddings of one process's share of a step, in float32."""
        embedded = Embedded()
        if batch.pixels is not None:
            pixels = self.pixels(batch.pixels).contiguous(memory_format=self.order)
            embedded.image = self._run("image", pixels)
        if batch.ids is not None:
            text = self._run("text", batch.ids.flatten(0, 1))
            embedded.text = text.view(*batch.ids.shape[:2], -1)
        if batch.negative_ids is not None and batch.negative_index is not None:
            text = self._run("text", batch.negative_ids.flatten(0, 1))
            embedded.negatives = text.view(*batch.negative_ids.shape[:2], -1)
            embedded.negative_mask = batch.negative_index >= 0
        return embedded

    def _run(self, tower: Tower, inputs: Tensor) -> Tensor:
        precision = self.recipe.precision
        with (
            torch.set_grad_enabled(torch.is_grad_enabled() and self.learns(tower)),
            torch.autocast(inputs.device.type, DTYPES.get(precision), enabled=precision in DTYPES),
        ):
            embedding: Tensor = self.tower(tower)(inputs)
        return unit_length(embedding.float())


def _order_of_axes(tower: nn.Module) -> torch.memory_format:
    """Channels last: faster for convolutions, the same numbers.

    Not where a strided 1x1 convolution sees the pixels, as in FastViT's stem: its gradient in that order
    ends the process on a CPU (torch 2.14, oneDNN).
    """
    fatal = any(
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and part.stride != (1, 1)
        and part.in_channels <= 4
        for part in tower.modules()
    )
    return torch.contiguous_format if fatal else torch.channels_last


def student_of(recipe: Recipe) -> Student:
    """The recipe's model, ready to train. TrainingError where its weights were folded for inference."""
    model = build(
        recipe.model,
        pretrained=recipe.pretrained or False,
        contract=recipe.contract,
        image_size=recipe.image_size,
        text_length=recipe.text_length,
        fuse=False,
    )
    student = Student(model, recipe)
    for tower in TOWERS:
        if student.learns(tower) and is_reparameterised(student.tower(tower)):
            raise TrainingError(
                f"The {tower} tower of {model.weights} was folded for inference and can't be trained well. "
                "Start from the checkpoint that it was folded from."
            )
        if student.learns(tower) and recipe.checkpointing:
            checkpoint_activations(student.tower(tower), f"{recipe.model}'s {tower} tower")
    return student


def parameter_groups(student: Student, objective: nn.Module, options: Optimiser) -> list[dict[str, Any]]:
    """Groups for AdamW: no decay on biases, norms and scales; falling rates if asked for.

    TrainingError where rates are to fall along the layers of a tower whose layers nothing tells apart.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    groups: list[dict[str, Any]] = []
    for tower in TOWERS:
        if student.learns(tower):
            module = student.tower(tower)
            if options.layer_decay < 1:
                layers = Layered(module, f"{student.model.entry.name}'s {tower} tower")
                groups += param_groups_layer_decay(
                    layers, options.weight_decay, layer_decay=options.layer_decay
                )
            else:
                groups += param_groups_weight_decay(module, options.weight_decay)
    grouped = {id(item) for group in groups for item in group["params"]}
    others = [*student.towers.parameters(), *objective.parameters()]
    rest = [item for item in others if item.requires_grad and id(item) not in grouped]
    groups.append({"params": [item for item in rest if item.ndim > 1], "weight_decay": options.weight_decay})
    groups.append({"params": [item for item in rest if item.ndim <= 1], "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def concatenated(parts: Sequence[Embedded]) -> Embedded:
    """Embeddings of several chunks as those of one batch."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Tensor | None:
        tensors = [getattr(part, name) for part in parts]
        return None if tensors[0] is None else torch.cat(tensors)

    return Embedded(*(joined(name) for name in ("image", "text", "negatives", "negative_mask")))
