"""A dual encoder of my own: MobileNetV4 from timm for images, a small text transformer for captions.

Everything the zoo needs stands here: how to build the two towers, and the facts about them. Export,
measurement, scoring and the report come from the zoo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpcvc_zoo import Entry, Preprocessing, TextSpec
from lpcvc_zoo.backbones.text_transformer import SMALL, towers_with_text
from lpcvc_zoo.entry import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from lpcvc_zoo import Towers

EMBED_DIM = 512
TEXT = TextSpec(context_length=77, pad_id=0, causal=True)


def make() -> Towers:
    """The bare towers: normalised pixels ``[N, 3, 224, 224]`` and ids ``[N, L]``, each to ``[N, 512]``.

    Import torch, timm and the like in here, so that listing the zoo stays quick.
    """
    # The trunk is any timm model; timm_proj None makes its classifier the projection to EMBED_DIM.
    vision = {
        "timm_model_name": "mobilenetv4_conv_small",
        "timm_pool": "avg",
        "timm_proj": None,
        "image_size": 224,
    }
    return towers_with_text(vision, SMALL, TEXT, EMBED_DIM)


ENTRIES = (
    Entry(
        name="my_encoder_small",
        family="my_encoder",
        make=make,
        image_size=224,
        embed_dim=EMBED_DIM,
        text=TEXT,
        preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic"),
        licence="Apache-2.0",
        paper="MobileNetV4: Universal Models for the Mobile Ecosystem, arXiv:2404.10518",
        # Optional facts. Without GMACs a sweep does this model last ("cheapest first").
        image_params=3_148_896,
        text_params=15_958_784,
        image_gmacs=0.185,
        text_gmacs=0.255,
    ),
)
