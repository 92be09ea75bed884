"""``build`` and a sweep with checkpoints: files of one's own, published ones on this machine, soups."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import aihub_sweep
import parity
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from tiny import tiny_entry, two_photos

from lpcvc_zoo import build, registry
from lpcvc_zoo.bench.sweep import SweepOptions, run
from lpcvc_zoo.cli import main
from lpcvc_zoo.entry import Preprocessing, Pretrained, TextSpec
from lpcvc_zoo.errors import ContractError, UnknownNameError, WeightsError
from lpcvc_zoo.weights.sources import source_of

SMALL = "efficientvit_m0_text_s"
PUBLISHED, FIXTURE = "tinyclip_vit_8m_16_text_3m", "TinyCLIP-ViT-8M-16-Text-3M"
SAMPLE = "lpcvc2026_sample"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read when it was imported


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A checkpoint of our own: another seed's weights, under the entry's own names."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        towers = registry.get_entry(SMALL).make()
    path = tmp_path / "tuned.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in towers.state_dict().items()}, path)
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights in the authors' layout, put where a person without a network would put the published file."""
    record = registry.get_entry(PUBLISHED).pretrained[0]
    path = source_of(record).places[0]
    path.parent.mkdir(parents=True)
    save_file(parity.weights(parity.layout(FIXTURE)), path)
    return path


def embeddings(model: torch.nn.Module) -> torch.Tensor:
    text = model.contract.prepare_text(["a red car.", "two dogs."])
    with torch.no_grad():
        return model.encode_text(text)


def test_a_file_of_ones_own_is_loaded_and_named_by_its_hash(tuned) -> None:
    model = build(SMALL, pretrained=tuned, contract=SAMPLE)
    assert model.weights.startswith("tuned.safetensors@")
    assert len(model.weights.partition("@")[2]) == 8
    assert not torch.allclose(embeddings(model), embeddings(build(SMALL, contract=SAMPLE)), atol=1e-2)


def test_a_soup_of_a_file_with_itself_and_unequal_shares_is_that_file(tuned) -> None:
    again = tuned.with_name("again.safetensors")
    again.write_bytes(tuned.read_bytes())
    soup = build(SMALL, pretrained={tuned: 0.7, again: 0.3}, contract=SAMPLE)
    alone = build(SMALL, pretrained=tuned, contract=SAMPLE)
    torch.testing.assert_close(embeddings(soup), embeddings(alone), atol=1e-5, rtol=0)
    assert "0.7*tuned.safetensors@" in soup.weights


def test_a_published_tag_brings_its_own_preprocessing_and_label(published) -> None:
    record = registry.get_entry(PUBLISHED).pretrained[0]
    for name, choice in ((f"{PUBLISHED}.{record.tag}", False), (PUBLISHED, True), (PUBLISHED, record.tag)):
        model = build(name, pretrained=choice, contract=SAMPLE)
        assert model.weights.startswith(f"{record.tag}@")
        assert model.preprocessing == record.preprocessing


def test_a_name_and_an_argument_that_disagree_are_refused(tuned) -> None:
    with pytest.raises(WeightsError, match="Leave one out"):
        build("mobileclip_s0.datacompdr", pretrained=str(tuned))


def test_bad_choices_say_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'datacompdr'"):
        build("mobileclip_s0.datacomp")
    with pytest.raises(WeightsError, match="no published checkpoint"):
        build(SMALL, pretrained=True)
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        build(SMALL, pretrained="nowhere.pt")
    with pytest.raises(WeightsError, match="Three ways on"):
        build("mobileclip_s0.datacompdr")


def test_another_architectures_file_is_refused_with_what_does_not_fit(tuned) -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        build("efficientvit_b0_text_s", pretrained=tuned)


def test_an_automatically_pruned_model_is_sized_by_its_checkpoint(tmp_path, tuned) -> None:
    name = "tinyclip_auto_vit_63m_32_text_31m"
    with pytest.raises(WeightsError, match="only in the checkpoint"):
        build(name)
    path = tmp_path / "auto.safetensors"
    save_file(parity.weights(parity.layout("tinyclip_auto_synthetic")), path)
    model = build(name, pretrained=path, contract=SAMPLE)
    assert embeddings(model).shape == (2, 512)
    with pytest.raises(WeightsError, match="Expected a TinyCLIP checkpoint"):
        build(name, pretrained=tuned)


@pytest.mark.parametrize(
    ("name", "size"), [(PUBLISHED, 160), ("mobileclip_b", 192), ("openai_clip_rn50", 160), (SMALL, 192)]
)
def test_image_towers_take_another_size(name: str, size: int) -> None:
    model = build(name, contract=SAMPLE, image_size=size)
    with torch.no_grad():
        embedding = model.encode_image(torch.rand(1, 3, 224, 224))
    assert model.entry.image_size == size
    assert embedding.shape == (1, model.entry.embed_dim)
    assert embedding.isfinite().all()


def test_an_image_size_that_the_tower_cannot_take_is_refused() -> None:
    with pytest.raises(ContractError, match="got 150"):
        build(PUBLISHED, image_size=150)


def test_positions_are_resized_once_where_file_and_wanted_size_agree(tmp_path) -> None:
    at_160 = build(PUBLISHED, contract=SAMPLE, image_size=160, fuse=False)
    state = {f"image.{name}": tensor for name, tensor in at_160.image_tower.state_dict().items()}
    state |= {f"text.{name}": tensor for name, tensor in at_160.text_tower.state_dict().items()}
    state["logit_scale"] = at_160.logit_scale.detach()
    state["image.positional_embedding"] = torch.randn_like(state["image.positional_embedding"])
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in state.items()}, tmp_path / "t.safetensors"
    )
    again = build(PUBLISHED, pretrained=tmp_path / "t.safetensors", contract=SAMPLE, image_size=160)
    assert torch.equal(again.image_tower.positional_embedding, state["image.positional_embedding"])


def test_a_restricted_licence_is_shown_once(monkeypatch, caplog) -> None:
    from lpcvc_zoo.weights import load

    monkeypatch.setattr(load, "_noticed", set())
    record = registry.get_entry("mobileclip_s1").pretrained[0]
    with caplog.at_level(logging.WARNING):
        load.notice("mobileclip_s1", record)
        load.notice("mobileclip_s2", record)
    assert [("research use only" in message) for message in caplog.messages] == [True]


def test_a_sweep_uses_the_checkpoints_on_this_machine_and_says_so(tmp_path, monkeypatch) -> None:
    """Of a tiny entry, which takes a moment to export, in this process, which knows it."""
    record = Pretrained(
        tag="ours", repo="org/tiny", file="tiny.safetensors", preprocessing=Preprocessing(), licence="x",
        training_data="x", paper="x",
    )  # fmt: skip
    entry = tiny_entry(text=TextSpec(causal=False), pretrained=(record,))
    monkeypatch.setitem(registry._found().entries, entry.name, entry)
    monkeypatch.setattr("lpcvc_zoo.bench.sweep.Workers", aihub_sweep.Inline)
    path = source_of(record).places[0]
    path.parent.mkdir(parents=True)
    save_file(entry.make().state_dict(), path)
    data = str(two_photos(tmp_path / "photos"))
    options = {
        "models": (entry.name,),
        "contracts": (SAMPLE,),
        "out": tmp_path / "out",
        "dataset": data,
        "jobs": 1,
    }
    row = run(SweepOptions(**options)).rows[0]
    assert row.weights.startswith("ours@")
    assert row.scores is not None
    assert row.scores.dataset == row.dataset == "photos"
    again = run(SweepOptions(**options))
    assert again.added == 0


def test_fetch_gives_what_can_be_had_and_says_what_cannot(published, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fetch", f"{PUBLISHED}.yfcc15m", "mobileclip_s0.datacompdr", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert json.loads(said.out)[f"{PUBLISHED}.yfcc15m"]["files"] == [str(published)]
    assert "Three ways on" in said.err
    with pytest.raises(SystemExit) as ended:
        main(["fetch", "efficientvit_m0_text_s", f"{PUBLISHED}.yfcc15m", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert list(json.loads(said.out)) == [f"{PUBLISHED}.yfcc15m"]
    assert "efficientvit_m0_text_s has no published checkpoint" in said.err
    with pytest.raises(SystemExit):
        main(["fetch", PUBLISHED, "mobilclip_s0"])
    assert "Did you mean" in capsys.readouterr().err
