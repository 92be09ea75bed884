"""EfficientNet-Lite0 with a small text transformer, meeting in the space of sentence embeddings.

Not a CLIP: nothing was learnt from images with captions. The image tower is a classifier of ImageNet's
classes followed by ConSE (Norouzi et al., arXiv:1312.5650): an image is the mean of its classes' sentence
embeddings (MiniLM, of the classes' names and of captions written for them), weighted by their probabilities;
what its colours are called is added to that. The text tower is distilled from MiniLM on text alone. So an
image is seen as a mixture of 1000 kinds of things and eleven colours; what those don't name is not seen.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lpcvc_zoo.backbones.text_transformer import EXTRA_SMALL, TINY, TextShape
from lpcvc_zoo.entry import Costs, Entry, Preprocessing, Pretrained, TextSpec, costs

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers

EMBED_DIM = 384  # of MiniLM's sentence embeddings
TEXT = TextSpec(context_length=20)
PREPROCESSING = Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
PAPER = (
    "EfficientNet-Lite (2020), after EfficientNet, arXiv:1905.11946; Zero-Shot Learning by Convex "
    "Combination of Semantic Embeddings, arXiv:1312.5650"
)


def make(shape: TextShape) -> Towers:
    from lpcvc_zoo.backbones._conse import conse_towers

    return conse_towers("tf_efficientnet_lite0", shape, TEXT, EMBED_DIM)


def _entry(size: int, text: str, shape: TextShape, cost: Costs, **facts: object) -> Entry:
    return Entry.model_validate(
        {
            "name": f"efficientnet_lite0_{size}_{text}",
            "family": "efficientnet_lite",
            "make": partial(make, shape),
            "image_size": size,
            "embed_dim": EMBED_DIM,
            "text": TEXT,
            "text_layers": shape.layers,
            "preprocessing": PREPROCESSING,
            "pretrained": (
                Pretrained(
                    tag="conse_minilm",
                    shipped=("efficientnet_lite0.safetensors", f"{text}.safetensors"),
                    preprocessing=PREPROCESSING,
                    licence="Apache-2.0",
                    training_data="ImageNet-1k with labels (image tower); texts of WordNet, Open Clipart, "
                    "emoji and templates, and captions that a language model wrote from words, through "
                    "MiniLM (text tower); no image with a caption",
                    paper=PAPER,
                ),
            ),
            "licence": "Apache-2.0",
            "paper": PAPER,
            **costs(cost),
            **facts,
        }
    )


# One image tower at sizes whose cost grows by 1.4 to 1.8 from one to the next; no recall chose them.
ENTRIES = (
    _entry(96, "text_xxs", TINY, (5_040_867, 3_618_816, 0.0724, 0.00828)),
    _entry(128, "text_xxs", TINY, (5_040_867, 3_618_816, 0.1273, 0.00828), quick=True),
    _entry(160, "text_xs", EXTRA_SMALL, (5_040_867, 5_031_808, 0.1977, 0.0363)),
    _entry(192, "text_xs", EXTRA_SMALL, (5_040_867, 5_031_808, 0.2839, 0.0363)),
    _entry(224, "text_xs", EXTRA_SMALL, (5_040_867, 5_031_808, 0.3858, 0.0363)),
    _entry(288, "text_xs", EXTRA_SMALL, (5_040_867, 5_031_808, 0.6365, 0.0363)),
)
