"""Each family against an independent implementation with the same weights, through the published layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import open_clip
import parity
import pytest
import torch
from open_clip.convert import convert_state_dict
from torch import Tensor, nn

from lpcvc_zoo.entry import Entry
from lpcvc_zoo.fuse import fuse
from lpcvc_zoo.registry import get_entry
from lpcvc_zoo.weights.layouts import to_own_names
from lpcvc_zoo.weights.load import Checkpoint

pytestmark = pytest.mark.slow


def loaded(entry: Entry, tensors: Mapping[str, Tensor]) -> nn.Module:
    checkpoint = Checkpoint(to_own_names(tensors, what="test"), entry.preprocessing, "test", "test")
    towers = entry.make_for(checkpoint.shapes) if entry.make_for else entry.make()
    towers.eval()
    checkpoint.load_into(towers)
    return towers


@torch.no_grad()
def embed(towers: Any, image_size: int) -> tuple[Tensor, Tensor]:
    images, ids = parity.inputs(image_size)
    return towers.image(images), towers.text(ids)


def expected(fixture: str) -> Any:
    return np.load(parity.FOLDER / f"{fixture}.npz")


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("openai_clip_vit_b32", "openai_ViT-B-32"),
        ("mobileclip_s0", "apple_mobileclip_s0"),
        ("mobileclip_s0", "apple_mobileclip_s0_fused"),
        ("mobileclip_s1", "apple_mobileclip_s1"),
        ("mobileclip_b", "apple_mobileclip_b"),
        ("tinyclip_vit_8m_16_text_3m", "TinyCLIP-ViT-8M-16-Text-3M"),
        ("tinyclip_resnet_19m_text_19m", "TinyCLIP-ResNet-19M-Text-19M"),
        ("tinyclip_auto_vit_45m_32_text_18m", "tinyclip_masked_synthetic"),
    ],
    ids=lambda value: str(value),
)
def test_a_published_layout_gives_what_its_authors_code_gives(name: str, fixture: str) -> None:
    entry = get_entry(name)
    want = expected(fixture)
    apart = np.abs(want["image"][0] - want["image"][1]).max() / np.abs(want["image"]).max()
    assert apart > 10 * parity.TOLERANCE, "the fixture hardly depends on its input"
    image, text = embed(loaded(entry, parity.weights(parity.layout(fixture))), entry.image_size)
    parity.assert_agree(image, want["image"])
    parity.assert_agree(text, want["text"])


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("mobileclip_s0", "apple_mobileclip_s0"),
        ("mobileclip_s0", "apple_mobileclip_s0_fused"),
        ("tinyclip_resnet_19m_text_19m", "TinyCLIP-ResNet-19M-Text-19M"),
    ],
)
def test_loaded_and_fused_it_still_gives_what_the_authors_code_gives(name: str, fixture: str) -> None:
    entry = get_entry(name)
    towers: Any = loaded(entry, parity.weights(parity.layout(fixture)))
    fuse(towers, entry.image_size, entry.text.context_length)
    image, text = embed(towers, entry.image_size)
    parity.assert_agree(image, expected(fixture)["image"])
    parity.assert_agree(text, expected(fixture)["text"])


def test_an_automatically_pruned_tinyclip_gives_what_its_authors_code_gives() -> None:
    entry = get_entry("tinyclip_auto_vit_63m_32_text_31m")
    fixture = "tinyclip_auto_synthetic"
    image, text = embed(loaded(entry, parity.weights(parity.layout(fixture))), entry.image_size)
    want = expected(fixture)
    for tower, got in (("image", image), ("text", text)):
        parity.assert_agree(got[:1, :16], want[tower])
        parity.assert_agree(got.norm(dim=-1), want[f"{tower}_norms"])


@torch.no_grad()
def test_mobileclip_s2_gives_what_open_clips_own_conversion_gives() -> None:
    tensors = parity.weights(parity.layout("apple_mobileclip_s2"))
    reference: Any = open_clip.create_model("MobileCLIP-S2").eval()
    reference.load_state_dict(convert_state_dict(reference, tensors), strict=True)
    entry = get_entry("mobileclip_s2")
    images, ids = parity.inputs(entry.image_size)
    image, text = embed(loaded(entry, tensors), entry.image_size)
    parity.assert_agree(image, reference.encode_image(images))
    parity.assert_agree(text, reference.encode_text(ids.long()))
    parity.assert_agree(image, expected("apple_mobileclip_s2")["image"])
    parity.assert_agree(text, expected("apple_mobileclip_s2")["text"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "architecture"), [("mobileclip2_s0", "MobileCLIP2-S0"), ("openai_clip_rn50", "RN50-quickgelu")]
)
def test_open_clips_own_state_dicts_give_what_open_clip_gives(name: str, architecture: str) -> None:
    reference: Any = open_clip.create_model(architecture).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in reference.state_dict().items()}
    tensors = parity.weights(shapes)
    reference.load_state_dict(tensors, strict=True)
    entry = get_entry(name)
    images, ids = parity.inputs(entry.image_size)
    image, text = embed(loaded(entry, tensors), entry.image_size)
    parity.assert_agree(image, reference.encode_image(images))
    parity.assert_agree(text, reference.encode_text(ids.long()))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "activation"), [("tinyclip_vit_8m_16_text_3m", "gelu"), ("openai_clip_vit_b32", "quick_gelu")]
)
def test_a_hugging_face_clip_gives_what_transformers_gives(name: str, activation: str) -> None:
    entry = get_entry(name)
    reference = clip_model(entry, activation)
    tensors = parity.weights({key: tuple(value.shape) for key, value in reference.state_dict().items()})
    reference.load_state_dict(tensors, strict=True)
    images, ids = parity.inputs(entry.image_size)
    seen = reference.vision_model(pixel_values=images).pooler_output
    read = reference.text_model(input_ids=ids.long()).pooler_output
    image, text = embed(loaded(entry, tensors), entry.image_size)
    parity.assert_agree(image, reference.visual_projection(seen))
    parity.assert_agree(text, reference.text_projection(read))


def clip_model(entry: Entry, activation: str) -> Any:
    """transformers' CLIPModel with the dimensions of an entry."""
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in entry.make().state_dict().items()}

    def layers(tower: str) -> int:
        return sum(key.startswith(tower) and key.endswith("attn.in_proj_weight") for key in shapes)

    width, _, patch, _ = shapes["image.conv1.weight"]
    text_width = shapes["text.token_embedding.weight"][1]
    common = {"hidden_act": activation, "projection_dim": entry.embed_dim}
    config = CLIPConfig(
        vision_config={
            "hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64,
            "num_hidden_layers": layers("image."), "patch_size": patch, "image_size": entry.image_size,
            **common,
        },
        text_config={
            "hidden_size": text_width, "intermediate_size": 4 * text_width, "eos_token_id": entry.text.eot_id,
            "num_attention_heads": text_width // 64, "num_hidden_layers": layers("text."), **common,
        },
        projection_dim=entry.embed_dim,
        attn_implementation="eager",
    )  # fmt: skip
    return CLIPModel(config).eval()
