"""EfficientViT image towers with a small text transformer.

Two architectures share the name: MIT's (linear attention over multi-scale tokens; b0 to b3) and MSRA's
(cascaded group attention; m0 to m5). Neither was ever published as half of a dual encoder: there are
ImageNet weights of the image towers only. The checkpoints listed here were made with this library, from no
image with a caption: their image towers imitate that of the family efficientnet_lite, down to its head.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lpcvc_zoo.backbones.text_transformer import EXTRA_SMALL, MEDIUM, SMALL, TextShape, towers_with_text
from lpcvc_zoo.entry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Costs,
    Entry,
    Preprocessing,
    Pretrained,
    TextSpec,
    costs,
)

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers

TEXT = TextSpec()
EMBED_DIM = 512
PREPROCESSING = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
DISTILLED_TEXT, DISTILLED_DIM = TextSpec(context_length=20), 384
MIT_PAPER = (
    "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction, arXiv:2205.14756"
)
MSRA_PAPER = (
    "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention, arXiv:2305.07027"
)


def make(trunk: str, shape: TextShape) -> Towers:
    # open_clip's own projection head expects a trunk without a classifier, which MIT's lacks a way to drop:
    # with timm_proj None the classifier itself becomes the projection.
    vision = {"timm_model_name": trunk, "timm_pool": "avg", "timm_proj": None, "image_size": 224}
    return towers_with_text(vision, shape, TEXT, EMBED_DIM)


def make_distilled(trunk: str, **options: object) -> Towers:
    from lpcvc_zoo.backbones._conse import conse_towers

    return conse_towers(trunk, EXTRA_SMALL, DISTILLED_TEXT, DISTILLED_DIM, **options)


def _entry(name: str, cost: Costs, trunk: str, shape: TextShape, paper: str, **facts: object) -> Entry:
    return Entry.model_validate(
        {
            "name": name,
            "family": "efficientvit",
            "make": partial(make, trunk, shape),
            "image_size": 224,
            "embed_dim": EMBED_DIM,
            "text": TEXT,
            "text_layers": shape.layers,
            "preprocessing": PREPROCESSING,
            "licence": "Apache-2.0 (architecture, from timm)",
            "paper": paper,
            **costs(cost),
            **facts,
        }
    )


def _distilled(name: str, size: int, cost: Costs, trunk: str, paper: str, **options: object) -> Entry:
    """In the space of the family efficientnet_lite, which taught the image tower and lends its text tower."""
    sizes = {"text": DISTILLED_TEXT, "embed_dim": DISTILLED_DIM, "image_size": size}
    make_it = partial(make_distilled, trunk, **options)
    weights = Pretrained(
        tag="lite0_distilled",
        shipped=(f"{trunk}.safetensors", "text_xs.safetensors"),
        preprocessing=PREPROCESSING,
        licence="Apache-2.0",
        training_data="pictures made of 5,060 photos, cut-outs, drawings and emoji with free licences, "
        "through EfficientNet-Lite0 (image tower); texts of WordNet, Open Clipart, emoji and "
        "templates, and captions that a language model wrote from words, through MiniLM (text tower); "
        "no image with a caption",
        paper=paper,
    )
    return _entry(name, cost, trunk, EXTRA_SMALL, paper, make=make_it, pretrained=(weights,), **sizes)


M0_COST, B0_COST = (2_738_019, 5_031_808, 0.0432, 0.0363), (3_798_867, 5_031_808, 0.0747, 0.0363)

ENTRIES = (
    # MSRA's has a bias of attention for each pair of places, so it is made for one size
    _distilled("efficientvit_m0_text_xs", 160, M0_COST, "efficientvit_m0", MSRA_PAPER, img_size=160),
    _distilled("efficientvit_b0_text_xs", 192, B0_COST, "efficientvit_b0", MIT_PAPER),
    _entry(
        "efficientvit_m0_text_s", (2_255_252, 15_958_784, 0.079, 0.255), "efficientvit_m0", SMALL, MSRA_PAPER
    ),
    _entry(
        "efficientvit_m2_text_s", (4_077_754, 15_958_784, 0.201, 0.255), "efficientvit_m2", SMALL, MSRA_PAPER
    ),
    _entry(
        "efficientvit_m5_text_m",
        (12_285_892, 29_846_400, 0.521, 0.845),
        "efficientvit_m5",
        MEDIUM,
        MSRA_PAPER,
    ),
    _entry(
        "efficientvit_b0_text_s",
        (2_784_880, 15_958_784, 0.1, 0.255),
        "efficientvit_b0",
        SMALL,
        MIT_PAPER,
        quick=True,
    ),
    _entry(
        "efficientvit_b1_text_s", (8_320_736, 15_958_784, 0.518, 0.255), "efficientvit_b1", SMALL, MIT_PAPER
    ),
    _entry(
        "efficientvit_b2_text_m", (23_080_944, 29_846_400, 1.584, 0.845), "efficientvit_b2", MEDIUM, MIT_PAPER
    ),
    _entry(
        "efficientvit_b3_text_m", (47_396_288, 29_846_400, 3.953, 0.845), "efficientvit_b3", MEDIUM, MIT_PAPER
    ),
)
