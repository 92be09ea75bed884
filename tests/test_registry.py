"""Names, entries and what a name becomes: listing, looking up, building the same model every time."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch

from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained
from lpcvc_zoo.errors import ContractError, RegistryError, UnknownNameError
from lpcvc_zoo.registry import build, get_entry, list_models, untrained

SMALL = "efficientvit_m0_text_s"
ENTRIES = [get_entry(name) for name in list_models()]
RECORDS = [
    pytest.param(entry, record, id=f"{entry.name}.{record.tag}")
    for entry in ENTRIES
    for record in entry.pretrained
]
PUBLISHED_BY_OPEN_CLIP = [param for param in RECORDS if param.values[1].open_clip]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_listing_gives_all_four_families_sorted() -> None:
    names = list_models()
    assert names == sorted(names)
    families = {get_entry(name).family for name in names}
    assert families >= {"openai_clip", "mobileclip", "tinyclip", "efficientvit"}


def test_a_pattern_chooses_by_name() -> None:
    assert list_models("mobileclip_s?") == ["mobileclip_s0", "mobileclip_s1", "mobileclip_s2"]
    assert list_models("*clip2_[sb]*") == ["mobileclip2_b", "mobileclip2_s0", "mobileclip2_s2"]
    assert list_models("no_such*") == []


def test_a_family_and_published_checkpoints_filter() -> None:
    assert all(name.startswith("openai_clip") for name in list_models(family="openai_clip"))
    trained, bare = list_models(pretrained=True), list_models(pretrained=False)
    assert "mobileclip_s0" in trained
    assert SMALL in bare
    assert sorted([*trained, *bare]) == list_models()
    assert list_models("*_s0", family="mobileclip", pretrained=True) == ["mobileclip2_s0", "mobileclip_s0"]
    assert list_models(family="efficientvit", pretrained=True) == [
        "efficientvit_b0_text_xs",
        "efficientvit_m0_text_xs",
    ]


def test_a_name_is_looked_up_with_and_without_its_tag() -> None:
    entry = get_entry("mobileclip_b")
    assert entry.name == "mobileclip_b"
    assert get_entry("mobileclip_b.datacompdr_lt") is entry
    assert entry.checkpoint("datacompdr_lt").open_clip == ("MobileCLIP-B", "datacompdr_lt")


@pytest.mark.parametrize(
    ("look", "kind", "suggestion"),
    [
        (lambda: get_entry("mobilclip_s0"), "model", "mobileclip_s0"),
        (lambda: build("openai_clip_b32"), "model", "openai_clip_vit_b32"),
        (
            lambda: get_entry("mobileclip_b.datacompdr-lt"),
            "checkpoint tag of mobileclip_b",
            "datacompdr_lt",
        ),
        (lambda: build("mobileclip_s0.datacomp"), "checkpoint tag of mobileclip_s0", "datacompdr"),
        (lambda: list_models(family="tinyclp"), "family", "tinyclip"),
        (lambda: build(SMALL, contract="lpcvc2025"), "contract", "lpcvc2026"),
    ],
    ids=["model", "model in build", "tag", "tag in build", "family", "contract"],
)
def test_a_misspelt_name_is_answered_with_the_nearest(look, kind, suggestion) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean") as caught:
        look()
    assert caught.value.kind == kind
    assert suggestion in caught.value.suggestions


def test_a_tag_of_an_entry_without_checkpoints_is_an_error_that_says_so() -> None:
    with pytest.raises(UnknownNameError, match=f"No checkpoint tag of {SMALL} is registered"):
        get_entry(f"{SMALL}.openai")
    with pytest.raises(UnknownNameError, match="checkpoint tag"):
        get_entry(f"{SMALL}.")


@pytest.mark.parametrize("length", [2, 78])
def test_a_text_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ContractError, match="text_length: expected 3 to 77 tokens"):
        build(SMALL, text_length=length)


LOOK = """
import sys
from lpcvc_zoo.registry import get_entry, list_models, plugin_problems

get_entry(list_models("mobileclip_s*", family="mobileclip", pretrained=True)[0] + ".datacompdr")
plugin_problems()
print(sorted({"torch", "timm", "open_clip", "transformers", "onnx"} & set(sys.modules)))
"""


def test_listing_and_looking_up_import_no_torch() -> None:
    assert run(LOOK) == "[]"


HASH = """
import hashlib
from lpcvc_zoo import build
digest = hashlib.sha256()
for name, tensor in build({name!r}).state_dict().items():
    digest.update(name.encode() + tensor.numpy().tobytes())
print(digest.hexdigest())
"""


def test_a_model_has_the_same_weights_in_every_process() -> None:
    torch.manual_seed(1234)  # whatever the caller's own seed
    digest = hashlib.sha256()
    for name, tensor in build(SMALL).state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert run(HASH.format(name=SMALL)) == digest.hexdigest()


def test_building_leaves_every_seed_of_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    build(SMALL)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert seeded == []


def test_two_entries_do_not_share_their_random_weights() -> None:
    first, second = (untrained(get_entry(name)) for name in (SMALL, "efficientvit_m2_text_s"))
    assert not torch.equal(first.text.token_embedding.weight, second.text.token_embedding.weight)


def test_make_must_return_towers() -> None:
    entry = get_entry(SMALL).model_copy(update={"make": lambda: torch.nn.Linear(1, 1)})
    with pytest.raises(RegistryError, match=r"make\(\) must return lpcvc_zoo\.Towers, got Linear"):
        untrained(entry)


def test_a_built_model_is_ready_for_inference_and_says_what_it_is() -> None:
    model = build(SMALL, text_length=16)
    assert not model.training
    assert (model.weights, model.entry.name, model.contract.name) == ("untrained", SMALL, "lpcvc2026")
    assert (model.text_length, model.preprocessing) == (16, model.entry.preprocessing)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_states_its_facts(entry: Entry) -> None:
    assert entry.licence
    assert "arXiv" in entry.paper or "http" in entry.paper
    facts = (entry.image_params, entry.text_params, entry.image_gmacs, entry.text_gmacs)
    if entry.make_for is None:
        assert all(fact is not None and fact > 0 for fact in facts)
    else:  # sizes come from a checkpoint
        assert facts == (None,) * 4
        assert entry.pretrained
        assert not entry.default_sweep


def test_the_quick_set_has_a_model_of_each_family_and_is_part_of_the_default_sweep() -> None:
    quick = [entry for entry in ENTRIES if entry.quick]
    assert {entry.family for entry in quick} >= {"openai_clip", "mobileclip", "tinyclip", "efficientvit"}
    assert all(entry.default_sweep for entry in quick)


@pytest.mark.parametrize(("entry", "record"), RECORDS)
def test_a_checkpoint_record_is_complete(entry: Entry, record: Pretrained) -> None:
    assert record.licence
    assert record.training_data
    assert record.paper
    assert record.scores or record.shipped  # those that we ship have cards with results of ours
    assert all(score.source and 0 < score.percent < 100 for score in record.scores)
    assert min(record.preprocessing.std) > 0
    if record.url is not None:
        assert record.url.startswith("https://")


@pytest.mark.parametrize(("entry", "record"), PUBLISHED_BY_OPEN_CLIP)
def test_a_record_agrees_with_open_clips_own_table(entry: Entry, record: Pretrained) -> None:
    assert record.open_clip is not None
    architecture, tag = record.open_clip
    assert tag in open_clip.list_pretrained_tags_by_model(architecture)
    table = open_clip.get_pretrained_cfg(architecture, tag)
    theirs = Preprocessing(
        **{
            key: table[key] if isinstance(table[key], str) else tuple(table[key])
            for key in ("mean", "std", "interpolation")
            if table.get(key) is not None
        }
    )
    assert record.preprocessing == theirs
    config = open_clip.get_model_config(architecture)
    assert entry.embed_dim == config["embed_dim"]
    assert entry.image_size == config["vision_cfg"]["image_size"]
    assert entry.text_layers == config["text_cfg"]["layers"]
