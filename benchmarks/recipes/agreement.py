"""How far an image tower agrees with its teacher on photos that it was not trained on.

    python benchmarks/recipes/agreement.py efficientvit_m0_text_xs MODEL.safetensors pictures/held_out

Mean cosine of the two embeddings of a photo, and the mean share of the teacher's ten nearest names among the
student's ten nearest, of ImageNet's 1000 class names as the teacher's text tower embeds them (chance: 0.01);
each with its 95 % bootstrap interval. The bundled benchmark has no part in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpcvc_zoo import build
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.retrieval.bootstrap import interval

TEACHER = "efficientnet_lite0_224_text_xs.conse_minilm"
CONTRACT = "lpcvc2026_sample"
NEAREST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("checkpoint")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--teacher", default=TEACHER)
    parser.add_argument("--image-size", type=int, help="pixels, of the student; by default the entry's")
    given = parser.parse_args()
    photos = sorted(given.photos.glob("*.jpg"))
    student = build(given.model, pretrained=given.checkpoint, contract=CONTRACT, image_size=given.image_size)
    teacher = build(given.teacher, pretrained="." in given.teacher, contract=CONTRACT)
    own, its = embedded(student, photos), embedded(teacher, photos)
    names = class_names(teacher)
    show("cosine to the teacher", (own * its).sum(dim=1).numpy())
    near = [(rows @ names.T).topk(NEAREST).indices for rows in (own, its)]
    shared = [len(np.intersect1d(*pair)) / NEAREST for pair in zip(*near, strict=True)]
    show(f"of the teacher's {NEAREST} nearest class names", np.array(shared))


@torch.inference_mode()
def embedded(model: DualEncoder, photos: list[Path]) -> Tensor:
    prepared = (torch.from_numpy(model.contract.prepare_image(photo)) for photo in photos)
    return torch.cat([model.encode_image(photo) for photo in prepared])


@torch.inference_mode()
def class_names(model: DualEncoder) -> Tensor:
    from open_clip import IMAGENET_CLASSNAMES

    names = [f"a photo of a {name}." for name in IMAGENET_CLASSNAMES]
    return model.encode_text(torch.from_numpy(model.contract.prepare_text(names)))


def show(what: str, values: NDArray[np.floating], of: str = "photos") -> None:
    low, high = interval(values)
    print(f"{what}: {values.mean():.4f} [{low:.4f}, {high:.4f}], {len(values)} {of}")


if __name__ == "__main__":
    main()
