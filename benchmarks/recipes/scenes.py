"""Pictures made where a network trains, new ones for every batch: things pasted on backgrounds.

No picture is kept and none comes twice; a GPU makes thousands a second, out of the folder ``ingredients``
that ``collect_pictures.py`` writes. Everything random is drawn from torch's generator of the device.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_ops

NEAR, FAR = 640, 320  # edges at which backgrounds are kept, for small crops and for large ones
THING = 192
KINDS = {"cutouts": 0.5, "drawings": 0.3, "emoji": 0.2}  # how often a thing is one of each
SLOTS = (0.65, 0.3, 0.12)  # how often a picture has a first, second and third thing
PLAIN, GRADIENT, BLURRED = 0.12, 0.1, 0.2  # of the backgrounds; the rest are crops of pictures as they are
LAID_OVER, CUT_IN = 0.2, 0.25  # of the pictures: mixed with another, and with a part of another
_AT_ONCE = 512  # pictures: 2 GB of a GPU


@dataclass(frozen=True)
class Scenes:
    """``near`` and ``far`` uint8 ``[M, 3, E, E]``, squeezed to squares, their ``aspect`` ``[M]`` as width by
    height; ``things`` uint8 ``[N, 4, THING, THING]``, colours times opacity; of each of ``KINDS``, ``spans``
    ``[K, 2]``: the place of its first thing and how many there are, and its ``shares`` ``[K]``."""

    near: Tensor
    far: Tensor
    aspect: Tensor
    things: Tensor
    spans: Tensor
    shares: Tensor

    @property
    def device(self) -> torch.device:
        return self.near.device

    @torch.no_grad()
    def batch(self, count: int, edge: int) -> Tensor:
        """Float32 ``[count, 3, edge, edge]``, 0 to 1."""
        chunks = [self._pictures(min(_AT_ONCE, count - at), edge) for at in range(0, count, _AT_ONCE)]
        return mixed(torch.cat(chunks))

    def _pictures(self, count: int, edge: int) -> Tensor:
        canvas = self._backgrounds(count, edge)
        for share in SLOTS:
            (rows,) = self._parted(count, share)
            if len(rows):
                canvas[rows] = self._pasted(canvas[rows])
        return recoloured(canvas, 0.4)

    def _backgrounds(self, count: int, edge: int) -> Tensor:
        blurred, gradients, plain = self._parted(count, BLURRED, GRADIENT, PLAIN)
        canvas = self._crops(count, edge)
        coarse = functional.interpolate(canvas[blurred], scale_factor=1 / 8, mode="area")
        canvas[blurred] = functional.interpolate(coarse, (edge, edge), mode="bilinear")
        canvas[gradients] = self._colours(len(gradients), edge, plain=False)
        canvas[plain] = self._colours(len(plain), edge, plain=True)
        return canvas

    def _colours(self, count: int, edge: int, *, plain: bool) -> Tensor:
        first, second = torch.rand(2, count, 3, 1, 1, device=self.device)
        if plain:
            white = torch.rand(count, 1, 1, 1, device=self.device) < 0.4
            first = second = torch.where(white, 1.0, first)
        angle = self._uniform(count, 0, 2 * math.pi).view(-1, 1, 1)
        line = torch.linspace(-0.5, 0.5, edge, device=self.device)
        share = (0.5 + line * angle.cos() + line.view(-1, 1) * angle.sin()).clamp(0, 1).unsqueeze(1)
        return first.lerp(second, share)

    def _crops(self, count: int, edge: int) -> Tensor:
        """Parts of backgrounds, from a fifth of the shorter edge to all of it, half of them mirrored."""
        chosen = torch.randint(len(self.near), (count,), device=self.device)
        close = count * 3 // 8  # so many are less than half of it
        side = torch.cat([self._uniform(close, 0.2, 0.5), self._uniform(count - close, 0.5, 1)])
        stretch = self._uniform(count, -0.25, 0.25).exp()
        aspect = self.aspect[chosen]
        across = (side * stretch * (1 / aspect).clamp(max=1)).clamp(max=1)
        down = (side / stretch * aspect.clamp(max=1)).clamp(max=1)
        x, y = (self._uniform(count, -1, 1) * (1 - half) for half in (across, down))
        matrix = torch.zeros(count, 2, 3, device=self.device)
        matrix[:, 0, 0], matrix[:, 0, 2] = across * self._sign(count), x
        matrix[:, 1, 1], matrix[:, 1, 2] = down, y
        return torch.cat(
            [
                sampled(self.near[chosen[:close]], matrix[:close], edge),
                sampled(self.far[chosen[close:]], matrix[close:], edge),
            ]
        )

    def _pasted(self, canvas: Tensor) -> Tensor:
        """Each picture with one more thing, at most a quarter of it outside, some with a soft shadow."""
        count, edge = len(canvas), canvas.shape[-1]
        share = self._uniform(count, math.log(0.3), math.log(1.05)).exp()
        angle = torch.randn(count, device=self.device) * math.radians(12)
        where = self._uniform(2 * count, -1, 1).view(count, 2) * (1 - share / 2).unsqueeze(1)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        turn = turn / share.view(-1, 1, 1)
        turn[:, 0] *= self._sign(count).unsqueeze(1)
        matrix = torch.cat([turn, -(turn @ where.unsqueeze(2))], dim=2)
        pasted = sampled(self.things[self._chosen(count)], matrix, edge, outside="zeros")
        colours, alpha = pasted[:, :3], pasted[:, 3:]
        right, down = edge // 40, edge // 50
        aside = functional.pad(alpha, (right, -right, down, -down))
        shade = functional.avg_pool2d(aside, 9, stride=1, padding=4)
        shaded = (torch.rand(count, 1, 1, 1, device=self.device) < 0.3) * 0.5
        colours = torch.minimum(recoloured(colours, 0.3, alpha), alpha)
        return canvas * (1 - shade * shaded) * (1 - alpha) + colours

    def _chosen(self, count: int) -> Tensor:
        """Indices into ``things``: a kind is drawn first, then one of that kind."""
        span = self.spans[torch.multinomial(self.shares, count, replacement=True)]
        return span[:, 0] + (torch.rand(count, device=self.device) * span[:, 1]).long()

    def _parted(self, count: int, *shares: float) -> list[Tensor]:
        """Disjoint random subsets of ``count``, of fixed sizes, so that no CPU waits for what a GPU drew."""
        order, ends = torch.randperm(count, device=self.device), [0]
        for share in shares:
            ends.append(ends[-1] + round(share * count))
        return [order[begin:end] for begin, end in itertools.pairwise(ends)]

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        return torch.rand(count, device=self.device) * (high - low) + low

    def _sign(self, count: int) -> Tensor:
        return torch.randint(2, (count,), device=self.device) * 2.0 - 1


def sampled(kept: Tensor, matrix: Tensor, edge: int, outside: str = "reflection") -> Tensor:
    """uint8 ``[n, C, E, E]`` seen through ``[n, 2, 3]``, as float32 ``[n, C, edge, edge]``, 0 to 1."""
    if not len(kept):
        return torch.empty(0, kept.shape[1], edge, edge, device=kept.device)
    grid = functional.affine_grid(matrix, [len(kept), 3, edge, edge], align_corners=False)
    return functional.grid_sample(
        kept.float() / 255, grid, mode="bilinear", padding_mode=outside, align_corners=False
    )


def recoloured(colours: Tensor, most: float, alpha: Tensor | float = 1.0) -> Tensor:
    """Brightness, contrast and saturation changed by up to ``most``; colours are times ``alpha``."""

    def factor() -> Tensor:
        return 1 + (torch.rand(len(colours), 1, 1, 1, device=colours.device) * 2 - 1) * most

    middle = 0.5 * alpha
    colours = (colours * factor() - middle) * factor() + middle
    grey = colours.mean(dim=1, keepdim=True)
    return ((colours - grey) * factor() + grey).clamp(0, 1)


def mixed(pictures: Tensor) -> Tensor:
    """Some blended with the picture before them, some with a patch of it pasted in."""
    count, _, edge, _ = pictures.shape
    device, other = pictures.device, pictures.roll(1, 0)
    kind = torch.rand(count, 1, 1, 1, device=device)
    laid = torch.rand(count, 1, 1, 1, device=device) * (kind < LAID_OVER)
    half = (torch.rand(2, count, 1, device=device) * 0.3 + 0.15) * edge
    middle = torch.rand(2, count, 1, device=device) * edge
    near = (torch.arange(edge, device=device) - middle).abs() < half
    inside = (near[0].unsqueeze(2) & near[1].unsqueeze(1)).unsqueeze(1)
    cut = inside & (kind > 1 - CUT_IN)
    return pictures.lerp(other, torch.where(cut, 1.0, laid))


def load_scenes(folder: Path, device: torch.device) -> Scenes:
    """The ingredients in a folder, on the device: a gigabyte for 176 backgrounds and 4,884 things."""
    with ThreadPoolExecutor() as pool:
        near, aspects = zip(*pool.map(_background, files_in(folder / "backgrounds", ".webp")), strict=True)
        found = [list(pool.map(_thing, files_in(folder / kind, ".webp"))) for kind in KINDS]
    counts = torch.tensor([len(things) for things in found])
    squares = torch.stack(near)
    tensors = (
        squares,
        image_ops.resize(squares, [FAR, FAR], antialias=True),
        torch.tensor(aspects),
        torch.stack(list(itertools.chain.from_iterable(found))),
        torch.stack([counts.cumsum(0) - counts, counts], dim=1),
        torch.tensor(list(KINDS.values())),
    )
    return Scenes(*(tensor.to(device) for tensor in tensors))


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files with a suffix, at least one, in the order of their names."""
    paths = sorted(folder.glob(f"*{suffix}"))
    if not paths:
        raise SystemExit(f"{folder} has no {suffix} files: collect_pictures.py writes them.")
    return paths


def _background(path: Path) -> tuple[Tensor, float]:
    image = Image.open(path).convert("RGB")
    square = image.resize((NEAR, NEAR), Image.Resampling.BICUBIC)
    return image_ops.pil_to_tensor(square), image.width / image.height


def _thing(path: Path) -> Tensor:
    """In the middle of a square whose edge is its longer one, colours times opacity."""
    image = Image.open(path).convert("RGBA")
    edge = max(image.size)
    square = Image.new("RGBA", (edge, edge))
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    pixels = image_ops.pil_to_tensor(square).float()
    pixels[:3] *= pixels[3:] / 255
    small = image_ops.resize(pixels, [THING - 4, THING - 4], antialias=True)  # room for a rim of nothing
    return functional.pad(small, (2, 2, 2, 2)).round().clamp(0, 255).to(torch.uint8)
