"""A dual encoder of a few thousand weights: real torch towers that build and export in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.entry import Entry, Preprocessing, TextSpec
from lpcvc_zoo.model import DualEncoder, Towers

DIM = 16
CHEAPEST = "efficientnet_lite0_96_text_xxs"  # to export, of the real entries


class TinyText(nn.Module):
    """Mean of the embeddings of all tokens, pads included: sensitive to ids, pads and length."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(49408, 8)
        self.projection = nn.Linear(8, DIM)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.projection(self.token_embedding(ids).mean(dim=1))
        return result


def two_photos(folder: Path) -> Path:
    """A dataset of two bundled photos with six texts each, as a folder with a captions file."""
    folder.mkdir()
    names = ("panda.jpg", "moose.jpg")
    for name in names:
        (folder / name).write_bytes((PHOTOS / "images" / name).read_bytes())
    captions = "\n".join(f"{name},{name} text {index}." for index in range(6) for name in names)
    (folder / "captions.csv").write_text(f"image,caption\n{captions}\n")
    return folder


def make_towers() -> Towers:
    image = nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, DIM)
    )
    return Towers(image, TinyText())


def tiny_entry(name: str = "tiny", **fields: object) -> Entry:
    facts = {"family": "tiny", "image_size": 32, "embed_dim": DIM, "licence": "Apache-2.0", "paper": "none"}
    return Entry.model_validate({"name": name, "make": make_towers, **facts, **fields})


def tiny_model(
    contract: str = "lpcvc2026",
    *,
    text_length: int | None = None,
    preprocessing: Preprocessing | None = None,
    text: TextSpec | None = None,
) -> DualEncoder:
    torch.manual_seed(0)
    entry = tiny_entry(text=text or TextSpec(pad_id=0, causal=False))
    return DualEncoder(
        make_towers(),
        entry,
        get_contract(contract),
        preprocessing or entry.preprocessing,
        text_length=text_length,
    ).eval()
