"""Photo-like pictures from cut-outs: things with transparent surroundings, pasted on photos and colours."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

EDGE = 256  # pixels
_HOW_MANY = (1, 1, 1, 2, 2, 3)
_PLAIN, _GRADIENT = 0.15, 0.1  # shares of the backgrounds; the rest are crops of pictures


def composite(
    photographed: Sequence[Path], drawn: Sequence[Path], backgrounds: Sequence[Path], seed: Sequence[int]
) -> tuple[bytes, list[Path]]:
    """One picture as JPEG, and the files that it was made of. All is drawn from the seed."""
    random = np.random.default_rng(seed)
    canvas, used = _background(backgrounds, random)
    for _ in range(int(random.choice(_HOW_MANY))):
        pool = photographed if random.random() < 0.65 else drawn
        path = pool[int(random.integers(len(pool)))]
        used.append(path)
        _paste(canvas, _changed(Image.open(path).convert("RGBA"), random), random)
    written = io.BytesIO()
    canvas.save(written, "JPEG", quality=90)
    return written.getvalue(), used


def tile(image: Image.Image, least: float, random: np.random.Generator, edge: int = EDGE) -> Image.Image:
    """A random square, ``least`` of the shorter edge or more, resized to ``edge``."""
    side = max(1, round(min(image.size) * random.uniform(least, 1)))
    left = int(random.integers(image.width - side + 1))
    top = int(random.integers(image.height - side + 1))
    box = (left, top, left + side, top + side)
    return image.resize((edge, edge), Image.Resampling.BICUBIC, box=box, reducing_gap=3)


def _background(pictures: Sequence[Path], random: np.random.Generator) -> tuple[Image.Image, list[Path]]:
    kind = random.random()
    if kind < _PLAIN + _GRADIENT:
        ends = random.integers(0, 256, (2, 3)).astype(np.float32)
        if kind < _PLAIN:
            ends[1] = ends[0] = 255 if random.random() < 0.4 else ends[0]
        angle = random.uniform(0, 2 * math.pi)
        down, across = np.mgrid[0:EDGE, 0:EDGE] / EDGE - 0.5
        share = np.clip(0.5 + across * math.cos(angle) + down * math.sin(angle), 0, 1)[..., None]
        pixels = ends[0] * (1 - share) + ends[1] * share + random.normal(0, 2, (EDGE, EDGE, 1))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), []
    path = pictures[int(random.integers(len(pictures)))]
    canvas = tile(Image.open(path).convert("RGB"), 0.4, random)
    if random.random() < 0.35:  # as out of focus
        canvas = canvas.filter(ImageFilter.GaussianBlur(float(random.uniform(1, 5))))
    return canvas, [path]


def _changed(thing: Image.Image, random: np.random.Generator) -> Image.Image:
    box = thing.getchannel("A").getbbox()
    if box is not None:
        thing = thing.crop(box)
    if random.random() < 0.5:
        thing = ImageOps.mirror(thing)
    share = math.exp(random.uniform(math.log(0.3), math.log(1.05)))
    scale = EDGE * share / max(thing.size)
    edges = (max(4, round(thing.width * scale)), max(4, round(thing.height * scale)))
    thing = thing.resize(edges, Image.Resampling.BICUBIC, reducing_gap=3)
    alpha = thing.getchannel("A")
    colours = thing.convert("RGB")
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        colours = change(colours).enhance(float(random.uniform(0.7, 1.3)))
    colours.putalpha(alpha)
    angle = float(random.normal(0, 12))
    return colours.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def _paste(canvas: Image.Image, thing: Image.Image, random: np.random.Generator) -> None:
    """In place, at most a quarter of the thing outside, at times with a soft shadow."""
    free = [edge - own for edge, own in zip(canvas.size, thing.size, strict=True)]
    where = [
        round(random.uniform(min(-own / 4, room), max(room + own / 4, 0)))
        for room, own in zip(free, thing.size, strict=True)
    ]
    if random.random() < 0.4:
        offset = int(random.integers(2, 10))
        shade = thing.getchannel("A").filter(ImageFilter.GaussianBlur(offset / 2)).point(lambda a: a // 2)
        canvas.paste((0, 0, 0), (where[0] + offset, where[1] + offset), shade)
    canvas.paste(thing, (where[0], where[1]), thing)
