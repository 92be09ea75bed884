"""Batches in an order that hangs on seed, epoch and step alone, so that a resumed run meets the same ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lpcvc_zoo.contract import Contract
from lpcvc_zoo.training.augment import Augmenter, resized
from lpcvc_zoo.training.parts import Parts
from lpcvc_zoo.training.sources import TrainingData, load_image
from lpcvc_zoo.training.texts import TextPool, TowerIds

Key = tuple[int, int]  # epoch, and the place of an image (of a text, where only texts are trained on)


@dataclass
class Batch:
    """One step's share of a process, B images with k texts and M false texts each; parts unused are None.

    ``image_index`` ``[B]`` and ``text_index`` ``[B, k]`` are places in the data and in the text pool;
    ``pixels`` is what the model's pixel adapter takes; ids are int32 ``[B, k, L]`` and ``[B, M, L]``;
    ``negative_index`` ``[B, M]`` is -1 where there is no false text.
    """

    image_index: Tensor | None = None
    pixels: Tensor | None = None
    text_index: Tensor | None = None
    ids: Tensor | None = None
    negative_index: Tensor | None = None
    negative_ids: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def chunks(self, count: int) -> list[Batch]:
        """The batch in ``count`` equal parts."""
        size = next(len(tensor) for tensor in self._tensors().values()) // count
        return [
            self._each(lambda tensor, begin=begin: tensor[begin : begin + size])
            for begin in range(0, size * count, size)
        ]

    def _tensors(self) -> dict[str, Tensor]:
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def _each(self, change: Any) -> Batch:
        return Batch(**{name: change(tensor) for name, tensor in self._tensors().items()})


_WINDOW = 64  # batches among which items of like length are put together


@dataclass(frozen=True)
class Order(Sampler[list[Key]]):
    """Each process's share of every step from ``start`` on: ``batch_size`` items in all, no item twice an
    epoch; what does not fill a batch at an epoch's end is left to the next epoch's order.

    ``lengths``: of texts that cost what the longest of their batch costs; then those of like length go into
    one batch, and the batches are shuffled.
    """

    items: int
    batch_size: int
    steps: int
    start: int
    seed: int
    rank: int = 0
    processes: int = 1
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = self.items // self.batch_size
        share = self.batch_size // self.processes
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                random = np.random.default_rng([self.seed, epoch])
                order = random.permutation(self.items)[: per_epoch * self.batch_size]
                if self.lengths is not None:
                    order = self._alike(order, self.lengths, random)
            begin = step % per_epoch * self.batch_size + self.rank * share
            yield [(epoch, int(item)) for item in order[begin : begin + share]]

    def _alike(
        self, order: NDArray[np.int64], lengths: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        window = _WINDOW * self.batch_size
        parts = [order[begin : begin + window] for begin in range(0, len(order), window)]
        alike = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        return random.permutation(alike.reshape(-1, self.batch_size)).ravel()


@dataclass
class Samples(Dataset[Batch]):
    """Makes batches from keys: draws texts, augments images, all from the key's own random generator.

    ``choices``: for each image (or text) that is trained on, its place in ``data``. ``pixels``: the cache, or
    None to take the whole road each time. ``ids``: of the pool, or None where no text tower is run.
    """

    data: TrainingData
    choices: NDArray[np.int64]
    augmenter: Augmenter
    contract: Contract
    seed: int
    size: int
    interpolation: str
    siblings: int
    pool: TextPool
    pixels: Parts | None
    ids: TowerIds | None
    with_images: bool

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Tokens of each text, where texts alone are trained on and pads cost nothing but time."""
        if self.with_images or self.ids is None or self.ids.lengths is None:
            return None
        return self.ids.lengths[self.choices]

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        if not self.with_images:
            places = self.choices[[item for _, item in keys]][:, None]
            assert self.ids is not None
            return Batch(text_index=torch.from_numpy(places), ids=self.ids.of(places))
        drawn = [self._draw(*key) for key in keys]
        batch = Batch(
            image_index=torch.tensor([image for image, _, _, _ in drawn]),
            pixels=torch.stack([pixels for _, pixels, _, _ in drawn]),
        )
        if self.ids is not None:
            texts = np.stack([texts for _, _, texts, _ in drawn])
            batch.text_index, batch.ids = torch.from_numpy(texts), self.ids.of(texts)
            if self.pool.negatives.shape[1]:
                wrong = np.stack([wrong for _, _, _, wrong in drawn])
                batch.negative_index = torch.from_numpy(wrong)
                batch.negative_ids = self.ids.of(wrong)
        return batch

    def _draw(self, epoch: int, item: int) -> tuple[int, Tensor, NDArray[np.int64], NDArray[np.int64]]:
        """Place of the image, its pixels, its k texts and the M false texts made from the first of them."""
        image = int(self.choices[item])
        random = np.random.default_rng([self.seed, epoch, image])
        own = np.array(self.data.positives[image], np.int64)
        texts = own
        if len(own):
            order = random.permutation(len(own))
            texts = own[np.resize(order, self.siblings)]  # repeated where there are fewer
        directional = bool(self.pool.directional[own].any())
        flip = self.augmenter.flips(directional, random)
        pixels = self._pixels(image, flip, bool(self.pool.placed[texts].any()), random)
        if self.augmenter.options.mix:
            pixels = self._mixed(pixels, random)
        if not len(own):
            return image, pixels, texts, texts
        false = self.pool.negatives[texts[0]]
        untold = np.isin(false, own)
        if flip:  # what is false of the image as it was may be true now, where the text names a direction
            untold |= self.pool.directional[texts[0]]
            texts = self.pool.mirror[texts]
        return image, pixels, texts, np.where(untold, -1, false)

    def _mixed(self, pixels: Tensor, random: np.random.Generator) -> Tensor:
        """Bytes, at times laid over those of another image, whichever batch or process that one is in."""
        if random.random() >= self.augmenter.options.mix:
            return pixels
        other = int(random.choice(self.choices))
        share = float(random.random())
        under = self._pixels(other, self.augmenter.flips(False, random), False, random)
        return pixels.float().lerp(under.float(), share).round().to(torch.uint8)

    def _pixels(self, image: int, flip: bool, whole: bool, random: np.random.Generator) -> Tensor:
        if self.pixels is not None:
            pixels = torch.from_numpy(self.pixels[image])
            pixels = self.augmenter(pixels, flip=flip, whole=whole, random=random)
            return resized(pixels, self.size, self.interpolation)
        opened = load_image(self.data.images[image])
        pixels = torch.from_numpy(np.array(opened)).permute(2, 0, 1)
        pixels = self.augmenter(pixels, flip=flip, whole=whole, random=random)
        changed = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        return torch.from_numpy(self.contract.prepare_image(changed)[0])


def loader(samples: Samples, order: Order, workers: int) -> DataLoader[Batch]:
    """Batches in the order given, made ahead by ``workers`` processes."""
    return DataLoader(
        samples,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_quiet,
        generator=torch.Generator(),  # its own: a resumed run must not draw from torch's
    )


def _as_is(batch: Any) -> Any:
    return batch


def _quiet(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides what to do about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
