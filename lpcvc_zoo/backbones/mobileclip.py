"""Apple's MobileCLIP and MobileCLIP2: FastViT-like or ViT image towers, mostly with a non-causal text tower.

open_clip has all but MobileCLIP-S0, whose text tower is in ``_mct.py``. Pixels are only scaled to [0, 1]:
mean 0, standard deviation 1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lpcvc_zoo.entry import Costs, Entry, Preprocessing, Pretrained, TextSpec, costs, published

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers

CAUSAL, TO_ALL = TextSpec(), TextSpec(causal=False)
PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear")
LICENCE = "Apple Machine Learning Research Model licence: research use only, no commercial use"
PAPER_1 = (
    "MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training, CVPR 2024, arXiv:2311.17049"
)
PAPER_2 = "MobileCLIP2: Improving Multi-Modal Reinforced Training, TMLR 2025, arXiv:2508.20691"
RESULTS = "apple/ml-mobileclip, results/*.jsonl"


def make(architecture: str) -> Towers:
    from lpcvc_zoo.backbones._towers import clip_towers_of

    return clip_towers_of(architecture, TO_ALL.eot_id)


def make_s0() -> Towers:
    """MobileCLIP2-S0 has the same image tower; the text tower is the hybrid one."""
    from lpcvc_zoo.backbones._mct import HybridTextTower
    from lpcvc_zoo.model import Towers

    text = HybridTextTower(
        width=512, heads=8, layers=4, embed_dim=512, context_length=TO_ALL.context_length,
        vocab_size=TO_ALL.vocab_size, eot_id=TO_ALL.eot_id,
    )  # fmt: skip
    return Towers(make("MobileCLIP2-S0").image, text)


def make_b() -> Towers:
    """MobileCLIP-B as Apple trained it; timm's network of that name differs in two constants."""
    from torch import nn

    towers = make("MobileCLIP-B")
    for part in towers.image.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-5
        elif isinstance(part, nn.Conv2d) and part.kernel_size == part.stride == (4, 4):
            part.padding = (1, 1)  # the stem's first convolution
    return towers


def _pretrained(
    tag: str, scores: tuple[float, float, float], data: str, paper: str, **source: object
) -> Pretrained:
    return Pretrained.model_validate(
        {
            "tag": tag,
            "preprocessing": PLAIN,
            "licence": LICENCE,
            "training_data": data,
            "paper": paper,
            "scores": published(*scores, source=RESULTS),
            **source,
        }
    )


DATA_1, DATA_2 = "DataCompDR-1B", "DFNDR-2B"
_v1 = partial(_pretrained, data=DATA_1, paper=PAPER_1)
_v2 = partial(_pretrained, "dfndr2b", data=DATA_2, paper=PAPER_2)


def _entry(
    name: str, cost: Costs, maker: object, size: int, *pretrained: Pretrained, **facts: object
) -> Entry:
    return Entry.model_validate(
        {
            "name": name,
            "family": "mobileclip",
            "make": maker,
            "image_size": size,
            "embed_dim": 512,
            "text": TO_ALL,
            "text_layers": 12,
            "preprocessing": PLAIN,
            "pretrained": pretrained,
            "licence": "MIT (code); checkpoints: " + LICENCE,
            "paper": pretrained[0].paper,
            **costs(cost),
            **facts,
        }
    )


ENTRIES = (
    _entry(
        "mobileclip_s0", (11_406_976, 42_441_216, 2.393, 1.318), make_s0, 256,
        _v1("datacompdr", (67.79, 85.90, 58.74), repo="apple/MobileCLIP-S0", file="mobileclip_s0.pt",
            revision="3d22d55fff32f091c79bf0f762198c72aa5b760f"),
        text_layers=None, quick=True,
    ),
    _entry(
        "mobileclip_s1", (21_541_632, 63_428_096, 4.668, 2.98), partial(make, "MobileCLIP-S1"), 256,
        _v1("datacompdr", (72.62, 89.20, 62.20), open_clip=("MobileCLIP-S1", "datacompdr")),
    ),
    _entry(
        "mobileclip_s2", (35_815_232, 63_428_096, 7.846, 2.98), partial(make, "MobileCLIP-S2"), 256,
        _v1("datacompdr", (74.44, 90.30, 63.36), open_clip=("MobileCLIP-S2", "datacompdr")),
    ),
    _entry(
        "mobileclip_b", (86_349_056, 63_428_096, 17.708, 2.98), make_b, 224,
        _v1("datacompdr", (76.82, 91.40, 68.84), open_clip=("MobileCLIP-B", "datacompdr")),
        _v1("datacompdr_lt", (77.22, 92.30, 68.68), open_clip=("MobileCLIP-B", "datacompdr_lt")),
        text=CAUSAL,
    ),
    _entry(
        "mobileclip2_s0", (11_406_976, 63_428_096, 2.393, 2.98), partial(make, "MobileCLIP2-S0"), 256,
        _v2((71.53, 86.60, 62.68), open_clip=("MobileCLIP2-S0", "dfndr2b")),
    ),
    _entry(
        "mobileclip2_s2", (35_815_232, 63_428_096, 7.846, 2.98), partial(make, "MobileCLIP2-S2"), 256,
        _v2((77.24, 90.40, 66.70), open_clip=("MobileCLIP2-S2", "dfndr2b")),
    ),
    _entry(
        "mobileclip2_b", (86_349_056, 63_428_096, 17.708, 2.98), partial(make, "MobileCLIP2-B"), 224,
        _v2((79.41, 89.70, 67.46), open_clip=("MobileCLIP2-B", "dfndr2b")),
        text=CAUSAL,
        notes="As open_clip and timm build it, which is how its checkpoint was published.",
    ),
)  # fmt: skip
