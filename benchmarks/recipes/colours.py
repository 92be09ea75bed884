"""The colour branch of the ConSE towers: from pixels to colours' names, and to MiniLM's words for them.

    python benchmarks/recipes/colours.py pictures

No picture is learnt from. Which colour goes by which name is written down below; a small network learns that
from random colours, so that the tower needs no colour space's cube roots. A colour's word is what its name
adds to the embeddings of things ("a red bird." less "a bird."). The command says how often names occur in the
photos that collect_pictures.py collected, which is what ``USUAL`` and ``SPREAD`` say: only what is unusual in
a picture tells it from others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from minilm import raw, whitening
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lpcvc_zoo.backbones._colours import HIDDEN, NAMES, Colours
from lpcvc_zoo.entry import Preprocessing
from lpcvc_zoo.registry import get_entry

Rows = NDArray[np.float64]
TEACHER = "efficientnet_lite0_224_text_xs"
SHADES = {  # sRGB, 0..255
    "red": ((200, 30, 40), (150, 20, 30)),
    "orange": ((240, 130, 30),),
    "yellow": ((240, 220, 50), (220, 190, 60)),
    "green": ((60, 140, 50), (40, 80, 30), (120, 170, 70)),
    "blue": ((40, 80, 180), (100, 160, 220), (30, 40, 100)),
    "purple": ((120, 60, 150),),
    "pink": ((240, 150, 180),),
    "brown": ((110, 70, 40), (150, 110, 70)),
    "black": ((20, 20, 20),),
    "white": ((240, 240, 240),),
    "grey": ((128, 128, 128), (170, 170, 170), (90, 90, 90)),
}
THINGS = (
    "bird", "fish", "car", "flower", "house", "dog", "boat", "tool", "building", "butterfly", "ball", "bag",
    "insect", "animal", "thing",
)  # fmt: skip
BLUR = 14.0  # of CIE Lab, within which a colour goes by two names
WEIGHT = 0.25  # of the colours' mean length beside the classes' 1
STEPS, BATCH, RATE, SEED = 3000, 4096, 2e-2, 0
# Mean of the roots of each name's share over 212 photos, and the mean length of what is left of their words
USUAL = (0.0822, 0.0666, 0.1000, 0.2126, 0.2754, 0.0774, 0.0966, 0.3266, 0.2346, 0.2364, 0.5351)
SPREAD = 0.2278


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path, help="what collect_pictures.py wrote")
    shares = np.array(list(roots(parser.parse_args().pictures)))
    usual = shares.mean(axis=0)
    spread = np.linalg.norm((shares - usual) @ words(), axis=1).mean()
    print(f"{len(shares)} photos, USUAL {', '.join(f'{root:.4f}' for root in usual)}, SPREAD {spread:.4f}")


def roots(pictures: Path) -> Iterator[NDArray[np.float32]]:
    """Of each collected photo the root of each colour's share, as the tower sees it at 224 pixels."""
    entry = get_entry(TEACHER)
    preprocessing, branch = entry.preprocessing, Colours(entry.embed_dim)
    branch.load_state_dict(state(preprocessing))
    nn.init.eye_(branch.words.weight)
    nn.init.zeros_(branch.words.bias)
    mean, std = (torch.tensor(given).view(3, 1, 1) for given in (preprocessing.mean, preprocessing.std))
    for path in sorted([*pictures.glob("ingredients/backgrounds/*"), *pictures.glob("held_out/*")]):
        photo = Image.open(path).convert("RGB").resize((entry.image_size,) * 2, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)
        with torch.inference_mode():
            yield branch(((pixels - mean) / std)[None])[0, : len(NAMES)].numpy()


def state(preprocessing: Preprocessing) -> dict[str, Tensor]:
    """The branch's weights for pixels that are normalised so."""
    naming = learnt()
    mean, std = torch.tensor([preprocessing.mean, preprocessing.std])
    weight, bias = scaled(naming[0].weight, naming[0].bias, mean, std)
    matrix = torch.from_numpy(words() * WEIGHT / SPREAD).float()
    return {
        "naming.0.weight": weight[:, :, None, None],
        "naming.0.bias": bias,
        "naming.2.weight": naming[2].weight[:, :, None, None],
        "naming.2.bias": naming[2].bias,
        "words.weight": matrix.T.contiguous(),
        "words.bias": -torch.tensor(USUAL) @ matrix,
    }


def scaled(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """A first layer, of one that takes ``x``, that takes ``(x - mean) / std`` and gives the same."""
    return weight * std, bias + weight @ mean


@cache
def words() -> Rows:
    """``[11, 384]``: what a colour's name adds to a thing's embedding, less what any colour's adds."""
    plain = raw([f"a {thing}." for thing in THINGS])
    added = [(raw([f"a {name} {thing}." for thing in THINGS]) - plain).mean(axis=0) for name in NAMES]
    rows: Rows = (added - np.mean(added, axis=0)) @ whitening()
    return rows


@cache
@torch.no_grad()
def learnt() -> nn.Sequential:
    """From sRGB in 0..1 ``[N, 3]`` to logits of the names, learnt from ``named``."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(SEED)
        net = nn.Sequential(nn.Linear(3, HIDDEN), nn.Hardswish(), nn.Linear(HIDDEN, len(NAMES)))
        optimiser = torch.optim.Adam(net.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
        for _ in range(STEPS):
            colours = torch.rand(BATCH, 3)
            target = torch.from_numpy(named(colours.double().numpy())).float()
            guess = net(colours * 2 - 1).log_softmax(dim=1)
            loss = nn.functional.kl_div(guess, target, reduction="batchmean")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    weight, bias = scaled(net[0].weight, net[0].bias, -torch.ones(3), torch.full((3,), 2.0))
    net[0].weight.copy_(weight)  # it learnt from -1..1
    net[0].bias.copy_(bias)
    return net.requires_grad_(False)


def named(colours: Rows) -> Rows:
    """How much each of sRGB colours ``[N, 3]`` in 0..1 goes by each name: by the nearest of its shades."""
    shades = lab(np.array([shade for name in NAMES for shade in SHADES[name]]) / 255)
    owner = np.array([place for place, name in enumerate(NAMES) for _ in SHADES[name]])
    distances = np.square(lab(colours)[:, None] - shades).sum(axis=2)
    nearest = np.stack([distances[:, owner == place].min(axis=1) for place in range(len(NAMES))], axis=1)
    weights = np.exp((nearest.min(axis=1, keepdims=True) - nearest) / (2 * BLUR**2))
    shares: Rows = weights / weights.sum(axis=1, keepdims=True)
    return shares


def lab(srgb: Rows) -> Rows:
    """CIE Lab (D65) of sRGB in 0..1: distances in it are differences that people see."""
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


if __name__ == "__main__":
    main()
