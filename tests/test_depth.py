"""A text tower of fewer layers: which stay, what follows them, and how the choice reaches an export."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from rows import row
from tiny import tiny_model
from torch import nn

from lpcvc_zoo import build, registry
from lpcvc_zoo.backbones._depth import set_text_depth
from lpcvc_zoo.backbones._mct import HybridTextTower
from lpcvc_zoo.backbones._towers import TextTower
from lpcvc_zoo.bench import steps
from lpcvc_zoo.bench.cut import WHOLE, TextCut
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.cli import main
from lpcvc_zoo.errors import ContractError, ZooError
from lpcvc_zoo.exporting import cache
from lpcvc_zoo.model import Towers

TRAINED = "efficientnet_lite0_128_text_xxs"
CLIP = "tinyclip_vit_8m_16_text_3m"
EOT = 49407


def text_tower(layers: int, seed: int = 0) -> TextTower:
    torch.manual_seed(seed)
    built = open_clip.transformer.TextTransformer(width=64, heads=1, layers=layers, output_dim=16)
    return TextTower(built, EOT).eval()


def test_the_first_layers_stay_and_what_comes_after_the_last_stays_as_it_is() -> None:
    towers = Towers(nn.Identity(), text_tower(4))
    small = text_tower(2, seed=1)  # a tower that never had more layers, given the weights that should stay
    missing, left = small.load_state_dict(towers.text.state_dict(), strict=False)
    assert not missing
    assert {name.split(".")[2] for name in left} == {"2", "3"}
    ids = torch.tensor([[49406, 320, 1125, EOT, 0], [49406, 2368, EOT, 0, 0]], dtype=torch.int32)
    with torch.no_grad():
        whole = towers.text(ids)
        set_text_depth(towers, 2, what="it")
        torch.testing.assert_close(towers.text(ids), small(ids), atol=0, rtol=0)
    assert (towers.text(ids) - whole).abs().max() > 1e-3
    assert towers.text.state_dict().keys() == small.state_dict().keys()


@pytest.mark.parametrize("depth", [-1, 0, 5])
def test_a_depth_that_the_tower_does_not_have_is_refused(depth: int) -> None:
    with pytest.raises(ContractError, match=f"text_depth: expected 1 to 4 layers, got {depth}"):
        set_text_depth(Towers(nn.Identity(), text_tower(4)), depth, what="it")


def test_a_tower_that_is_no_stack_of_like_layers_has_no_depth() -> None:
    hybrid = HybridTextTower(
        width=64, heads=1, layers=2, embed_dim=16, context_length=20, vocab_size=EOT + 1, eot_id=EOT
    )
    with pytest.raises(ContractError, match=r"no depth for it, whose text tower is no stack.*Leave it out"):
        set_text_depth(Towers(nn.Identity(), hybrid), 1, what="it")
    assert tiny_model().text_depth is None


@pytest.mark.parametrize(("name", "layers", "more"), [(TRAINED, 2, {"pretrained": True}), (CLIP, 3, {})])
def test_a_model_is_built_with_fewer_layers_of_the_same_weights(name, layers, more) -> None:
    whole, cut = build(name, **more), build(name, text_depth=1, **more)
    assert (whole.text_depth, cut.text_depth) == (layers, 1)
    kept = cut.state_dict()
    gone = whole.state_dict().keys() - kept.keys()
    assert {key.partition("resblocks.")[2][:1] for key in gone} == set("12"[: layers - 1])
    assert all(torch.equal(whole.state_dict()[key], tensor) for key, tensor in kept.items())
    text = whole.contract.prepare_text(["a red car.", "two dogs."])
    with torch.no_grad():
        difference = (whole.encode_text(text) - cut.encode_text(text)).abs().max()
    assert difference > 1e-3


@pytest.mark.parametrize("command", ["export", "profile", "evaluate", "lint", "quantize", "bundle"])
def test_a_command_builds_its_model_at_the_depth_that_is_asked_for(
    command: str, monkeypatch, tmp_path, capsys
) -> None:
    def built(name: str, **options: Any) -> None:
        raise ZooError(f"built with {options['text_depth']} layers and {options['text_length']} tokens")

    monkeypatch.setattr(registry, "build", built)
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    out = ["--out", str(tmp_path / "out")] if command in ("export", "quantize", "bundle") else []
    with pytest.raises(SystemExit, match="1"):
        main([command, CLIP, "--text-depth", "2", "--text-length", "9", *out])
    assert "built with 2 layers and 9 tokens" in capsys.readouterr().err


def test_a_sweeps_workers_export_and_embed_the_cut_that_they_are_given(monkeypatch) -> None:
    seen: list[dict[str, Any]] = []

    def stopped(name: str, **options: Any) -> None:
        seen.append({option: options[option] for option in ("text_length", "text_depth")})
        raise ZooError("enough")

    monkeypatch.setattr(cache, "cached_export", stopped)
    monkeypatch.setattr(registry, "build", stopped)
    cut = TextCut(text_length=9, text_depth=2)
    with pytest.raises(ZooError, match="enough"):
        steps.export_in_worker(CLIP, "untrained", "lpcvc2026", cut, "none", "float", "photos_calibration")
    with pytest.raises(ZooError, match="enough"):
        steps.torch_embeddings_in_worker(CLIP, "untrained", "lpcvc2026", cut, "photos")
    assert seen == [{"text_length": 9, "text_depth": 2}] * 2
    ids = {
        steps.export_id(CLIP, "untrained", "lpcvc2026", given, "none", "float", "photos_calibration")
        for given in (WHOLE, cut, TextCut(text_length=9), TextCut(text_depth=2), TextCut(text_depth=1))
    }
    assert len(ids) == 5


def test_a_row_made_before_there_was_a_depth_still_loads() -> None:
    old = row().model_dump(mode="json", round_trip=True, exclude={"text_depth"})
    assert ResultRow.model_validate(old) == row()
