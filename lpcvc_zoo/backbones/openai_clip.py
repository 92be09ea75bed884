"""OpenAI's CLIP, through open_clip; its weights were trained with QuickGELU, so that is the activation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lpcvc_zoo.entry import Costs, Entry, Preprocessing, Pretrained, TextSpec, costs, published

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers

TEXT = TextSpec()
PAPER = "Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020"
RESULTS = "open_clip, docs/openclip_results.csv and openclip_retrieval_results.csv"


def make(architecture: str) -> Towers:
    from lpcvc_zoo.backbones._towers import clip_towers_of

    return clip_towers_of(architecture, TEXT.eot_id)


def _entry(
    name: str,
    cost: Costs,
    architecture: str,
    embed_dim: int,
    scores: tuple[float, float, float],
    **facts: object,
) -> Entry:
    return Entry.model_validate(
        {
            "name": name,
            "family": "openai_clip",
            "make": partial(make, architecture),
            "image_size": 224,
            "embed_dim": embed_dim,
            "text": TEXT,
            "text_layers": 12,
            "pretrained": (
                Pretrained(
                    tag="openai",
                    open_clip=(architecture, "openai"),
                    preprocessing=Preprocessing(),
                    licence="MIT",
                    training_data="WIT-400M (OpenAI's own, not published)",
                    paper=PAPER,
                    scores=published(*scores, source=RESULTS),
                ),
            ),
            "licence": "MIT",
            "paper": PAPER,
            **costs(cost),
            **facts,
        }
    )


ENTRIES = (
    _entry(
        "openai_clip_vit_b32",
        (87_849_216, 63_428_096, 4.409, 2.98),
        "ViT-B-32-quickgelu",
        512,
        (63.32, 78.90, 50.12),
        quick=True,
    ),
    _entry(
        "openai_clip_rn50",
        (38_316_896, 63_690_240, 6.111, 2.98),
        "RN50-quickgelu",
        1024,
        (59.82, 80.00, 48.84),
    ),
    _entry(
        "openai_clip_vit_b16",
        (86_192_640, 63_428_096, 17.563, 2.98),
        "ViT-B-16-quickgelu",
        512,
        (68.34, 82.20, 52.42),
    ),
    _entry(
        "openai_clip_vit_l14",
        (303_966_208, 123_650_304, 81.013, 6.65),
        "ViT-L-14-quickgelu",
        768,
        (75.54, 85.20, 56.34),
        default_sweep=False,
    ),
)
