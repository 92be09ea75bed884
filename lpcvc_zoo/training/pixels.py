"""The pixels that the image tower gets on the device, kept as bytes in memory-mapped files.

An image goes the whole road once: the contract's host recipe, then the graph's own resize. What comes out
is rounded to a byte: exact where the graph resizes nothing (``lpcvc2026_sample`` at 224), else off by at most
half a grey level of 255. A random crop is a part of these pixels, enlarged to the tower's size: kept larger
for that, they made crops no truer (34.1 against 34.0 dB to crops of the files) and whole images less so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lpcvc_zoo.contract import Contract
from lpcvc_zoo.ingraph import ImageAdapter, resizer
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.training.parts import Parts, Rows, filled
from lpcvc_zoo.training.sources import ImageRef, identities, load_image

Done = Callable[[int, int], None]  # how many are done, and how many there are
PART = 512
_AT_ONCE = 8  # 100 MB of images under lpcvc2026


def cached_pixels(
    images: Sequence[ImageRef],
    model: DualEncoder,
    *,
    device: torch.device,
    workers: int = 0,
    done: Done | None = None,
) -> Parts:
    """uint8 ``[3, S, S]`` of each image at the model's own size, made where the cache lacks them.

    ContractError for an image that can't be read.
    """
    contract, size, interpolation = model.contract, model.entry.image_size, model.preprocessing.interpolation
    about = [contract.image.model_dump(mode="json"), interpolation, size, identities(images)]
    resize = resizer(contract.image, size, interpolation).to(device)

    @torch.inference_mode()
    def make(part: range) -> Rows:
        made: list[Rows] = []
        for batch in prepared(images[part.start : part.stop], contract, workers):
            pixels = resize(batch.to(device)) * (255 / contract.image.high)
            made.append(pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy())
            if done is not None:
                done(part.start + sum(map(len, made)), len(images))
        return np.concatenate(made)

    return filled("pixels", about, len(images), PART, make)


def prepared(images: Sequence[ImageRef], contract: Contract, workers: int) -> DataLoader[Tensor]:
    """Batches ``[n, 3, H, W]`` of a contract's images, in order."""
    # its own generator: a loader without one would draw from torch's
    generator = torch.Generator()
    return DataLoader(
        _Prepared(images, contract), batch_size=_AT_ONCE, num_workers=workers, generator=generator
    )


class CachedPixelAdapter(nn.Module):
    """Cached pixels uint8 ``[N, 3, S, S]`` -> what ``ImageAdapter`` gives: normalised float32."""

    def __init__(self, adapter: ImageAdapter, high: float) -> None:
        super().__init__()
        self.adapter, self.high = adapter, high

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() * self.high / 255 * self.adapter.scale + self.adapter.shift


class _Prepared(Dataset[Tensor]):
    def __init__(self, images: Sequence[ImageRef], contract: Contract) -> None:
        self.images, self.contract = images, contract

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.contract.prepare_image(load_image(self.images[index]))[0])
