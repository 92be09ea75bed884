"""A tower's layers: learning rates fall along them, and their activations can be computed twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.training.norms import unseen

# Names of a tower's blocks: in timm's trunks, and in transformers and ResNets of open_clip's kind
_BLOCK = re.compile(
    r"(trunk\.)?(stages\.\d+\.)?blocks\.\d+(\.\d+)?|transformer\.(resblocks\.)?\d+|layer[1-4]\.\d+"
)
# What timm's models say of themselves, for towers of open_clip's making; names not in it come last
_MATCHER = {
    "stem": r"(?:class_embedding|positional_embedding|token_embedding|conv\d|bn\d|ln_pre)\b",
    "blocks": [(r"transformer\.(?:resblocks\.)?(\d+)\.", None), (r"layer(\d)\.(\d+)\.", None)],
}


class Layered:
    """What timm's layer-wise rates ask of a tower: its parameters, and which layer each belongs to.

    open_clip wraps timm's trunks, which know their own layers; ``what`` names the tower in errors.
    """

    def __init__(self, tower: nn.Module, what: str) -> None:
        trunk: Any = getattr(tower, "trunk", tower)
        self.named_parameters = trunk.named_parameters
        self.group_matcher: Callable[..., Any] = getattr(trunk, "group_matcher", self._of_open_clip)
        if self.group_matcher == self._of_open_clip and not blocks_of(tower):
            raise TrainingError(
                f"optimiser.layer_decay: nothing tells the layers of {what} apart. Expected a model of "
                "timm's or open_clip's, or a method group_matcher as timm's have it. Leave layer_decay at 1, "
                "or freeze that tower."
            )

    def _of_open_clip(self, coarse: bool) -> Any:
        return _MATCHER


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The tower's repeated blocks from the input on; none where its parts have no known names."""
    return [
        part
        for name, part in tower.named_modules()
        if _BLOCK.fullmatch(name) and not isinstance(part, nn.Sequential)
    ]


def checkpoint_activations(tower: nn.Module, what: str) -> None:
    """Have each block compute its inner activations again in the backward pass instead of keeping them.

    BatchNorm's running statistics count once. TrainingError for a tower without known blocks.
    """
    blocks = blocks_of(tower)
    if not blocks:
        raise TrainingError(
            f"checkpointing: {what} has no blocks known by their names to compute twice. Expected a model of "
            "timm's or open_clip's. Leave checkpointing off, or freeze that tower."
        )
    for block in blocks:
        again = partial(checkpoint, block.forward, use_reentrant=False, context_fn=partial(_times, block))
        block.forward = again


def _times(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the block the first time and the second."""
    return nullcontext(), unseen(block)
