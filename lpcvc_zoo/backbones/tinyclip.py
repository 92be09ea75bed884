"""TinyCLIP: CLIPs distilled into smaller ones that inherit part of a larger one's weights.

*Manual* variants keep evenly spaced layers and channels, so a few numbers describe them. *Auto* variants
were pruned by learned masks: every layer has its own number of heads and MLP width, and these stand only
in the checkpoint. All use the exact GELU, also where the parent used QuickGELU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.entry import Costs, Entry, Preprocessing, Pretrained, TextSpec, costs, published
from lpcvc_zoo.errors import WeightsError

if TYPE_CHECKING:
    from lpcvc_zoo.model import Towers

TEXT = TextSpec()
HEAD_WIDTH = 64
PAPER = (
    "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance, ICCV 2023, arXiv:2309.12314"
)
RESULTS = "wkcn/TinyCLIP, README.md"
RELEASES = "https://github.com/wkcn/TinyCLIP-model-zoo/releases/download/checkpoints/"
MANUAL = "Manual variant: evenly spaced layers and channels of its parent."
AUTO = (
    "Auto variant: each layer's heads and MLP width stand only in the checkpoint, "
    "so it can't be built without one."
)

Shapes = Mapping[str, tuple[int, ...]]


def config(
    vision_width: int, vision_layers: int | list[int], patch: int | None, text_width: int, text_layers: int
) -> dict[str, Any]:
    """open_clip's configuration; ``vision_layers`` as a list and no ``patch`` mean a ResNet."""
    return {
        "embed_dim": 512 if patch else 1024,
        "vision_cfg": {
            "image_size": 224, "layers": vision_layers, "width": vision_width, "patch_size": patch,
        },
        "text_cfg": {
            "context_length": TEXT.context_length, "vocab_size": TEXT.vocab_size, "width": text_width,
            "heads": text_width // HEAD_WIDTH, "layers": text_layers,
        },
    }  # fmt: skip


def make(dimensions: Mapping[str, Any]) -> Towers:
    from lpcvc_zoo.backbones._towers import clip_towers

    return clip_towers(dimensions, TEXT.eot_id)


def make_auto(name: str) -> Towers:
    raise WeightsError(
        f"{name} has no size of its own: {AUTO[0].lower()}{AUTO[1:]} "
        f"Pass pretrained=True, a tag, or a path; `lpcvc-zoo show {name}` lists the published checkpoints."
    )


def make_auto_for(shapes: Shapes) -> Towers:
    """Towers of the uneven sizes that a checkpoint has, given as shapes under the entry's own names.

    A layer whose heads were all pruned keeps its output bias only, as the authors' code does.
    """
    from lpcvc_zoo.backbones._pruned import layer_sizes, prune_blocks

    needed = ("image.conv1.weight", "text.token_embedding.weight", "text.text_projection")
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise WeightsError(
            f"Expected a TinyCLIP checkpoint with ViT and text transformer; it has no {', '.join(missing)}."
        )
    image = layer_sizes(shapes, "image.transformer.resblocks.", HEAD_WIDTH)
    text = layer_sizes(shapes, "text.transformer.resblocks.", HEAD_WIDTH)
    width, _, patch, _ = shapes["image.conv1.weight"]
    text_width = shapes["text.token_embedding.weight"][1]
    dimensions = config(width, len(image), patch, text_width, len(text))
    # open_clip asks that heads fill the width; these towers' attention is replaced below.
    dimensions["vision_cfg"]["head_width"] = width
    dimensions["text_cfg"]["heads"] = 1
    towers = make(dimensions | {"embed_dim": shapes["text.text_projection"][1]})
    for tower, size, sizes in ((towers.image, width, image), (towers.text, text_width, text)):
        blocks: Any = tower.transformer
        prune_blocks(blocks.resblocks, size, HEAD_WIDTH, sizes)
    return towers


def _pretrained(tag: str, data: str, imagenet: float, **source: object) -> Pretrained:
    return Pretrained.model_validate(
        {
            "tag": tag,
            "preprocessing": Preprocessing(),
            "licence": "MIT",
            "training_data": data,
            "paper": PAPER,
            "scores": published(imagenet, source=RESULTS),
            **source,
        }
    )


def _entry(
    name: str, cost: Costs | None, maker: object, embed_dim: int, *pretrained: Pretrained, **facts: object
) -> Entry:
    return Entry.model_validate(
        {
            "name": name,
            "family": "tinyclip",
            "make": maker,
            "image_size": 224,
            "embed_dim": embed_dim,
            "text": TEXT,
            "pretrained": pretrained,
            "licence": "MIT",
            "paper": PAPER,
            "notes": MANUAL,
            **(costs(cost) if cost else {}),
            **facts,
        }
    )


def _auto(size: str, *pretrained: Pretrained) -> Entry:
    name = f"tinyclip_auto_{size}"
    return _entry(
        name,
        None,
        partial(make_auto, name),
        512,
        *pretrained,
        make_for=make_auto_for,
        default_sweep=False,
        notes=AUTO,
    )


_yfcc = partial(_pretrained, "yfcc15m", "YFCC-15M")
_laion = partial(_pretrained, "laion400m", "LAION-400M")
_both = partial(_pretrained, "laionyfcc400m", "LAION-400M and YFCC-15M")
_HF = "wkcn/TinyCLIP-"
_BIN = "pytorch_model.bin"

ENTRIES = (
    _entry(
        "tinyclip_vit_8m_16_text_3m", (8_276_992, 15_169_024, 1.787, 0.191),
        partial(make, config(256, 10, 16, 256, 3)), 512,
        _yfcc(41.1, repo=f"{_HF}ViT-8M-16-Text-3M-YFCC15M", file="model.safetensors"),
        text_layers=3, quick=True,
    ),
    _entry(
        "tinyclip_vit_39m_16_text_19m", (38_587_392, 44_513_792, 7.991, 1.49),
        partial(make, config(512, 12, 16, 512, 6)), 512,
        _yfcc(63.5, repo=f"{_HF}ViT-39M-16-Text-19M-YFCC15M", file=_BIN),
        text_layers=6,
    ),
    _entry(
        "tinyclip_vit_40m_32_text_19m", (39_691_776, 44_513_792, 1.995, 1.49),
        partial(make, config(512, 12, 32, 512, 6)), 512,
        _laion(59.8, repo=f"{_HF}ViT-40M-32-Text-19M-LAION400M", file=_BIN),
        text_layers=6,
    ),
    _entry(
        "tinyclip_vit_61m_32_text_29m", (61_411_200, 53_970_944, 3.084, 2.235),
        partial(make, config(640, 12, 32, 512, 9)), 512,
        _laion(62.4, repo=f"{_HF}ViT-61M-32-Text-29M-LAION400M", file=_BIN),
        text_layers=9,
    ),
    _entry(
        "tinyclip_resnet_19m_text_19m", (18_596_766, 44_775_936, 2.916, 1.49),
        partial(make, config(44, [3, 4, 6, 3], None, 512, 6)), 1024,
        _laion(56.4, url=RELEASES + "TinyCLIP-ResNet-19M-Text-19M-LAION400M.pt"),
        text_layers=6,
    ),
    _entry(
        "tinyclip_resnet_30m_text_29m", (29_583_780, 54_233_088, 4.693, 2.235),
        partial(make, config(56, [3, 4, 6, 3], None, 512, 9)), 1024,
        _laion(59.1, url=RELEASES + "TinyCLIP-ResNet-30M-Text-29M-LAION400M.pt"),
        text_layers=9,
    ),
    _auto(
        "vit_63m_32_text_31m",
        _laion(63.9, url=RELEASES + "TinyCLIP-auto-ViT-63M-32-Text-31M-LAION400M.pt"),
        _both(64.5, url=RELEASES + "TinyCLIP-auto-ViT-63M-32-Text-31M-LAIONYFCC400M.pt"),
    ),
    _auto(
        "vit_45m_32_text_18m",
        _laion(61.4, url=RELEASES + "TinyCLIP-auto-ViT-45M-32-Text-18M-LAION400M.pt"),
        _both(62.7, url=RELEASES + "TinyCLIP-auto-ViT-45M-32-Text-18M-LAIONYFCC400M.pt"),
    ),
    _auto(
        "vit_22m_32_text_10m",
        _laion(53.7, url=RELEASES + "TinyCLIP-auto-ViT-22M-32-Text-10M-LAION400M.pt"),
    ),
)  # fmt: skip
