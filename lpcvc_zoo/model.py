"""The two towers and how they live under a contract."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from lpcvc_zoo.ingraph import ImageAdapter, TextAdapter

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Contract
    from lpcvc_zoo.entry import Entry, Preprocessing


@dataclass(frozen=True)
class Folding:
    """What folding did to a tower: how many BatchNorms went, and what torch runs before and after.

    ``cosine`` is between the embeddings of one seeded sample before and after.
    """

    norms: int
    operators_before: int
    operators_after: int
    cosine: float


class Towers(nn.Module):
    """What a family builds: the bare towers. Its ``state_dict`` is the entry's own checkpoint layout.

    ``image``: normalised pixels float32 ``[N, 3, S, S]`` -> ``[N, D]``, before L2.
    ``text``: ids int32 ``[N, L]`` padded its own way, ``L <= context_length`` -> ``[N, D]``, before L2.
    ``foldings``: by tower, what ``fuse`` did; it holds no tower in which there was nothing to fold.
    """

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.foldings: dict[str, Folding] = {}
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


class ImageEncoder(nn.Module):
    """Contract image -> unit-length embedding; this is what is exported as the image tower."""

    def __init__(self, adapter: ImageAdapter, tower: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter
        self.tower = tower

    def forward(self, image: Tensor) -> Tensor:
        return unit_length(self.tower(self.adapter(image)))


class TextEncoder(nn.Module):
    """Contract text -> unit-length embedding; this is what is exported as the text tower."""

    def __init__(self, adapter: TextAdapter, tower: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter
        self.tower = tower

    def forward(self, text: Tensor) -> Tensor:
        return unit_length(self.tower(self.adapter(text)))


def layers_of(text_tower: nn.Module) -> nn.ModuleList | None:
    """A text transformer's layers, as open_clip has them; None where a tower is no stack of like layers."""
    layers = getattr(getattr(text_tower, "transformer", None), "resblocks", None)
    return layers if isinstance(layers, nn.ModuleList) else None


def unit_length(embedding: Tensor) -> Tensor:
    """Rows of length 1. Written out because ``F.normalize`` exports an Expand."""
    # Largest number 1 first: squares of small or large embeddings leave the range of an NPU's fp16.
    scaled = embedding / embedding.abs().amax(dim=-1, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / length


class DualEncoder(nn.Module):
    """An entry's towers under a contract: host arrays in, unit-length embeddings out.

    ``weights`` names what is loaded: "untrained", or the tag and hash of a checkpoint.
    """

    def __init__(
        self,
        towers: Towers,
        entry: Entry,
        contract: Contract,
        preprocessing: Preprocessing,
        *,
        text_length: int | None = None,
        weights: str = "untrained",
    ) -> None:
        super().__init__()
        self.entry = entry
        self.contract = contract
        self.preprocessing = preprocessing
        self.weights = weights
        self.foldings = towers.foldings
        self.text_length = self.full_text_length if text_length is None else text_length
        self.image_encoder = ImageEncoder(
            ImageAdapter(contract.image, preprocessing, entry.image_size), towers.image
        )
        self.text_encoder = TextEncoder(TextAdapter(contract.text, entry.text, self.text_length), towers.text)
        self.logit_scale = towers.logit_scale

    @property
    def image_tower(self) -> nn.Module:
        """The bare image tower: normalised pixels ``[N, 3, S, S]`` -> ``[N, D]`` before L2."""
        return self.image_encoder.tower

    @property
    def text_tower(self) -> nn.Module:
        """The bare text tower: ids ``[N, L]`` padded the tower's own way -> ``[N, D]`` before L2."""
        return self.text_encoder.tower

    @property
    def full_text_length(self) -> int:
        """Tokens of the text sequence where it is not cut."""
        return min(self.contract.text.length, self.entry.text.context_length)

    @property
    def text_depth(self) -> int | None:
        """Transformer layers of the text tower; None where it is no stack of like layers."""
        layers = layers_of(self.text_tower)
        return None if layers is None else len(layers)

    def encode_image(self, image: Tensor | np.ndarray) -> Tensor:
        """Contract images ``[N, 3, H, W]`` -> unit-length embeddings ``[N, D]``. Checks a numpy input."""
        if isinstance(image, np.ndarray):
            self.contract.check_image(image)
            image = torch.from_numpy(image)
        return cast(Tensor, self.image_encoder(image))

    def encode_text(self, text: Tensor | np.ndarray) -> Tensor:
        """Contract texts -> unit-length embeddings ``[N, D]``. Checks a numpy input."""
        if isinstance(text, np.ndarray):
            self.contract.check_text(text)
            text = torch.from_numpy(text)
        return cast(Tensor, self.text_encoder(text))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text)
