"""A tiny entry with a name in the registry, drawings with captions, and the command in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import make_towers, tiny_entry
from torch import nn

from lpcvc_zoo import registry
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.model import Towers

TESTS = Path(__file__).parent
NAME, NORMED = "tiny", "tiny_normed"
COLOURS = {
    "red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 200), "yellow": (220, 220, 40),
    "white": (240, 240, 240), "black": (10, 10, 10),
}  # fmt: skip
PAIRS = [(box, ground) for box in COLOURS for ground in COLOURS if box != ground]


@contextmanager
def registered() -> Iterator[None]:
    """The tiny entries in the registry of this process while the block runs."""
    entries, text = registry._found().entries, TextSpec(causal=False)
    entries[NAME] = tiny_entry(NAME, text=text)
    entries[NORMED] = tiny_entry(NORMED, text=text, make=normed_towers)
    try:
        yield
    finally:
        del entries[NAME], entries[NORMED]


def normed_towers() -> Towers:
    """The tiny towers with what makes training remember and draw: BatchNorm and dropout."""
    towers = make_towers()
    convolution, *rest = towers.image
    towers.image = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.Dropout(0.1), *rest)
    return towers


def drawings(folder: Path, count: int = 24, *, edge: int = 40, seed: int = 0) -> Path:
    """Boxes on coloured grounds, two captions each, as a folder with a captions file."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    lines = ["image,caption"]
    for index in range(count):
        box, ground = PAIRS[index % len(PAIRS)]
        pixels = np.empty((edge, edge + 8, 3), np.uint8)
        pixels[:] = COLOURS[ground]
        left = bool(random.integers(2))
        begin = 4 if left else edge - 16
        pixels[8:28, begin : begin + 16] = COLOURS[box]
        noisy = pixels + random.normal(0, 6, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03}.png")
        side = "left" if left else "right"
        lines.append(f"{index:03}.png,a {box} box on {ground} ground.")
        lines.append(f"{index:03}.png,drawing {index} with its {box} box on the {side}.")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def environment(cache: Path) -> dict[str, str]:
    paths = [str(TESTS), str(TESTS.parent)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LPCVC_ZOO_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
    }


def start(cache: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    """``lpcvc-zoo`` with the tiny entry, in one process or in several that torchrun starts."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, str(Path(__file__)), *arguments],
        env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    from lpcvc_zoo.cli import main

    with registered():
        main()
