"""A tower of a run as a file that may come with the package: fp16, small tensors in fp32.

    python benchmarks/recipes/ship.py runs/text_xs text --whiten --out text_xs.safetensors

``record.py`` keeps what the run was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from minilm import whitening
from safetensors.torch import load_file, save_file
from torch import Tensor

from lpcvc_zoo.contract import TOWERS
from lpcvc_zoo.files import written_whole
from lpcvc_zoo.training.folder import BEST


def main() -> None:
    arguments = argparse.ArgumentParser(description="Keep one tower of a checkpoint, in fp16.")
    arguments.add_argument("run", type=Path, help="a run's folder, with model.safetensors")
    arguments.add_argument("tower", choices=TOWERS)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--whiten", action="store_true", help="where the teacher did not yet")
    options = arguments.parse_args()
    tensors = load_file(options.run / BEST)
    save(whitened(tensors) if options.whiten else tensors, options.tower, options.out)


def save(tensors: Mapping[str, Tensor], tower: str, path: Path) -> None:
    """One tower.

    Matrices in fp16; what has one dimension (norms, biases) stays in fp32: it is small, and may be far from
    1. The image tower's file also has the scale of cosines.
    """
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{tower}.")}
    if tower == "image":
        kept["logit_scale"] = tensors["logit_scale"]
    halved = {
        name: tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor
        for name, tensor in kept.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in halved.items()}, temporary)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def whitened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The towers with ``minilm.whitening`` in the text tower's last layer."""
    name = "text.text_projection"
    return tensors | {name: tensors[name] @ torch.from_numpy(whitening())}


if __name__ == "__main__":
    main()
