"""Converters are total: every tensor of a checkpoint has its place in the towers, or the error names it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lpcvc_zoo.backbones.tinyclip import make_auto_for
from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained
from lpcvc_zoo.errors import UnknownNameError, WeightsError
from lpcvc_zoo.weights import load as load_module
from lpcvc_zoo.weights.fit import fit
from lpcvc_zoo.weights.layouts import detect, to_own_names
from lpcvc_zoo.weights.load import Checkpoint, load
from lpcvc_zoo.weights.resize import resize_positions, resized_grid, resized_text
from lpcvc_zoo.weights.soup import average
from lpcvc_zoo.weights.tinyclip import keep

State = dict[str, Tensor]
WIDTH, LAYERS = 64, 2


def make_small(image_size: int = 32, context_length: int = 16) -> Any:
    """A ViT and a text transformer of two narrow layers each, as open_clip builds them."""
    from lpcvc_zoo.backbones._towers import clip_towers

    vision = {"image_size": image_size, "layers": LAYERS, "width": WIDTH, "patch_size": 8}
    text = {"context_length": context_length, "vocab_size": 99, "width": WIDTH, "heads": 1, "layers": LAYERS}
    return clip_towers({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}, 98)


def entry_of(make: Callable[[], Any], *pretrained: Pretrained, **facts: Any) -> Entry:
    return Entry(
        name="small", family="test", make=make, image_size=32, embed_dim=32, pretrained=pretrained,
        licence="MIT", paper="none", **facts,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(load_module, "_noticed", set())


@pytest.fixture(scope="module")
def own() -> State:
    torch.manual_seed(0)
    return {name: torch.randn(value.shape) for name, value in make_small().state_dict().items()}


@pytest.fixture(scope="module")
def wanted(own: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in own.items()}


def as_clip(own: State) -> State:
    return {re.sub(r"^text\.", "", re.sub(r"^image\.", "visual.", name)): own[name] for name in own}


def as_open_clip(own: State) -> State:
    return {re.sub(r"^image\.", "visual.", name): own[name] for name in own}


def as_tinyclip(own: State) -> State:
    flat = as_clip(own)
    flat["logit_scale.logit_scale"] = flat.pop("logit_scale")
    names = {name: "_image_encoder" if name.startswith("visual.") else "_text_encoder" for name in flat}
    del names["logit_scale.logit_scale"]
    return {f"{names[name]}.{name}" if name in names else f"_{name}": flat[name] for name in flat}


def convert(state: State, wanted: dict[str, tuple[int, ...]], *, what: str) -> State:
    """As ``Checkpoint.load_into`` does, for towers of the shapes ``wanted``."""
    return fit(resize_positions(to_own_names(state, what=what), wanted, what=what), wanted, what=what)


def refusal(state: State, wanted: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(WeightsError) as caught:
        convert(state, wanted, what="a.pt")
    return str(caught.value)


def assert_same(got: State, expected: State) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


# Layouts


@pytest.mark.parametrize(
    ("form", "layout"),
    [
        (lambda own: own, "lpcvc_zoo"),
        (as_clip, "CLIP"),
        (as_open_clip, "open_clip"),
        (as_tinyclip, "TinyCLIP"),
        (lambda own: {name.replace("_encoder", "_encoder.module"): t for name, t in as_tinyclip(own).items()},
         "TinyCLIP"),
        (lambda own: {f"module.{name}": t for name, t in as_tinyclip(own).items()}, "TinyCLIP"),
        (lambda own: {re.sub(r"^_(image|text)_encoder", r"\1_encoder_without_ddp", name): t
                      for name, t in as_tinyclip(own).items()}, "TinyCLIP"),
        (lambda own: {re.sub(r"^(image|text)\.", r"\1_encoder.tower.", name): t for name, t in own.items()},
         "lpcvc_zoo"),
    ],
    ids=["own", "clip", "open_clip", "tinyclip", "tinyclip_ddp", "tinyclip_module", "tinyclip_without_ddp",
         "dual_encoder"],
)  # fmt: skip
def test_every_layout_gives_back_the_same_tensors(
    form: Callable[[State], State], layout: str, own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    state = form(own)
    names = [name.removeprefix("module.") for name in state]  # reading strips it
    state = dict(zip(names, state.values(), strict=True))
    assert detect(state, what="a.pt") == layout
    assert_same(convert(state, wanted, what="a.pt"), own)


def test_openai_fp16_becomes_fp32_exactly_and_its_three_facts_are_dropped(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    half = {name: tensor.half() for name, tensor in as_clip(own).items()}
    facts = {name: torch.tensor(77) for name in ("input_resolution", "context_length", "vocab_size")}
    masks = {"attn_mask": torch.zeros(16, 16), "transformer.resblocks.0.attn_mask": torch.zeros(16, 16)}
    got = convert(half | facts | masks, wanted, what="a.pt")
    assert {tensor.dtype for tensor in got.values()} == {torch.float32}
    assert_same(got, {name: tensor.half().float() for name, tensor in own.items()})


def test_hugging_face_positions_that_only_count_are_dropped_and_queries_packed_in_order() -> None:
    layer = "text_model.encoder.layers.0.self_attn"
    state = {
        f"{layer}.{part}_proj.{kind}": torch.full((2, 2) if kind == "weight" else (2,), value)
        for value, part in enumerate("kvq")  # transformers stores k, v, q
        for kind in ("weight", "bias")
    }
    state["vision_model.embeddings.position_ids"] = torch.arange(5)
    state["visual_projection.weight"] = torch.arange(6).view(2, 3)
    got = to_own_names(state, what="a.pt")
    assert set(got) == {
        "image.proj", "text.transformer.resblocks.0.attn.in_proj_weight",
        "text.transformer.resblocks.0.attn.in_proj_bias",
    }  # fmt: skip
    assert got["text.transformer.resblocks.0.attn.in_proj_bias"].tolist() == [2, 2, 0, 0, 1, 1]
    assert got["image.proj"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("names", [["stem.conv.weight", "head.weight"], ["visual.conv1.weight"], []])
def test_names_of_no_known_layout_are_an_error_that_shows_them(names: list[str]) -> None:
    with pytest.raises(WeightsError, match=r"a\.pt is in no known layout.*CLIP") as caught:
        detect(names, what="a.pt")
    assert all(name in str(caught.value) for name in names)


# Totality


def test_missing_unexpected_and_misshapen_tensors_are_listed_with_the_nearest_candidates(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    state = as_clip(own)
    state["visual.ln_pree.weight"] = state.pop("visual.ln_pre.weight")
    state["visual.proj"] = torch.zeros(3, 4)
    message = refusal(state, wanted)
    assert message.startswith("a.pt does not fit: 1 missing, 1 unexpected, 1 misshapen of ")
    assert "missing: image.ln_pre.weight [64] (nearest in the file: image.ln_pree.weight [64])" in message
    assert "unexpected: image.ln_pree.weight [64] (nearest wanted: image.ln_pre.weight [64])" in message
    assert "misshapen: image.proj [3, 4], not [64, 32]" in message


def test_a_tensor_that_belongs_nowhere_is_never_passed_over(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    for form in (as_clip, as_open_clip, as_tinyclip, dict):
        message = refusal(form(own) | {"ema.decay": torch.zeros(())}, wanted)
        assert "1 unexpected" in message
        assert "ema.decay" in message


def test_every_single_tensor_is_missed_when_it_is_gone(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    for name in own:
        state = {other: tensor for other, tensor in own.items() if other != name}
        assert f"missing: {name} " in refusal(state, wanted)


def test_many_problems_are_counted_and_the_first_shown(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    message = refusal({name: own[name] for name in ("image.proj", "text.ln_final.bias")}, wanted)
    assert f"{len(own) - 2} missing" in message
    assert f"missing: ... and {len(own) - 2 - 5} more" in message
    assert len(message.splitlines()) < 12


def test_another_variant_is_told_by_its_sizes(own: State, wanted: dict[str, tuple[int, ...]]) -> None:
    wider = {name: (2 * shape[0],) if len(shape) == 1 else shape for name, shape in wanted.items()}
    assert "is this a checkpoint of another variant?" in refusal(own, wider)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("text.token_embedding.weight", torch.int8),
        ("image.conv1.weight", torch.complex64),
        ("text.positional_embedding", torch.int32),
    ],
)
def test_integers_and_complex_numbers_are_not_taken_for_weights(
    own: State, name: str, kind: torch.dtype
) -> None:
    towers = make_small(context_length=8 if "positional" in name else 16)
    state = own | {name: (100 * own[name]).to(kind)}
    said = f"of another kind: {name} {str(kind).removeprefix('torch.')}, not floats"
    with pytest.raises(WeightsError, match=re.escape(said)):
        Checkpoint(state, Preprocessing(), "a", "a.pt").load_into(towers)


def test_floats_are_not_taken_for_integers(own: State, wanted: dict[str, tuple[int, ...]]) -> None:
    indices = {"image.bias_idxs": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"does not fit: 1 of another kind.*\n.*float32, not integers"):
        fit(own | indices, wanted | {"image.bias_idxs": (3,)}, what="a.pt", integers=indices)


def test_a_copy_with_batch_norm_folded_away_is_told(own: State, wanted: dict[str, tuple[int, ...]]) -> None:
    norms = {"image.bn.running_mean": (4,), "image.bn.running_var": (4,)}
    assert "fuse=True" in refusal(own, wanted | norms)


def test_what_evaluation_does_not_read_may_be_missing_and_a_scale_may_be_a_list(
    own: State, wanted: dict[str, tuple[int, ...]]
) -> None:
    scale = {"logit_scale": torch.tensor([2.5])}
    got = convert(own | scale, wanted | {"image.bn.num_batches_tracked": ()}, what="a.pt")
    assert got["logit_scale"].shape == ()
    assert got["image.bn.num_batches_tracked"].dtype == torch.int64
    averaged = {"image.bn.num_batches_tracked": torch.tensor(12.5)}  # some EMA copies average counters
    got = convert(own | averaged, wanted | {"image.bn.num_batches_tracked": ()}, what="a.pt")
    assert got["image.bn.num_batches_tracked"] == 12


# TinyCLIP's pruning


def test_a_layer_whose_attention_was_pruned_away_computes_as_if_it_were_skipped(own: State) -> None:
    state = as_tinyclip(own)
    layer = "_text_encoder.transformer.resblocks.0."
    gone = [name for name in state if name.startswith((f"{layer}attn.", f"{layer}ln_1."))]
    pruned = {name: tensor for name, tensor in state.items() if name not in gone}
    silent = dict(state)
    for part in ("weight", "bias"):  # an attention whose output is zero does nothing either
        silent[f"{layer}attn.out_proj.{part}"] = torch.zeros_like(state[f"{layer}attn.out_proj.{part}"])
    rows = [
        built_for(tensors).text(torch.tensor([[5, 98, 0]], dtype=torch.int32)) for tensors in (pruned, silent)
    ]
    torch.testing.assert_close(*rows)


def built_for(tensors: State) -> Any:
    checkpoint = Checkpoint(to_own_names(tensors, what="a.pt"), Preprocessing(), "a", "a.pt")

    def sized(shapes: dict[str, tuple[int, ...]]) -> Any:
        from lpcvc_zoo.backbones._pruned import layer_sizes, prune_blocks

        towers = make_small()
        for tower in ("image", "text"):
            blocks = getattr(towers, tower).transformer.resblocks
            prune_blocks(blocks, WIDTH, 64, layer_sizes(shapes, f"{tower}.transformer.resblocks.", 64))
        return towers

    towers = sized(checkpoint.shapes).eval()
    checkpoint.load_into(towers)
    return towers


@pytest.mark.parametrize(
    "published", ["apple_mobileclip_s0", "apple_mobileclip_b", "tinyclip_masked_synthetic", "transformers"]
)
def test_a_tensor_of_any_other_shape_is_an_error_of_ours(published: str, own: State) -> None:
    import parity

    if published == "transformers":
        names = ("visual_projection", "vision_model.x.self_attn.q_proj", "text_model.x.self_attn.q_proj")
        packed = {f"{n[:-6]}{part}_proj.weight": (4, 4) for n in names if "q_proj" in n for part in "qkv"}
        shapes: dict[str, tuple[int, ...]] = {"visual_projection.weight": (4, 4), **packed}
    else:
        shapes = parity.layout(published)
    good = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    to_own_names(good, what="a.pt")
    refused = []
    for name in {re.sub(r"\d+", "0", name): name for name in shapes}.values():  # one of each kind
        for shape in ((), (0,), (3,), (2, 3, 5, 7)):
            try:
                to_own_names({**good, name: torch.zeros(shape)}, what="a.pt")
            except WeightsError as error:
                refused.append(str(error))
    assert refused
    assert all("but not its shapes" in message for message in refused)


def test_a_mask_keeps_as_many_as_its_distribution_expects_and_the_largest() -> None:
    assert keep(torch.tensor([10.0, -10.0, 9.0, -9.0])).nonzero().flatten().tolist() == [0, 2]
    assert keep(torch.full((6,), -10.0)).count_nonzero() == 0
    open_mask = keep(torch.full((6,), 10.0))
    assert (open_mask > 0.9999).all()
    assert (open_mask <= 1).all()


def test_automatic_variants_are_built_to_the_sizes_of_the_checkpoint() -> None:
    import parity

    shapes = {
        name: tuple(value.shape)
        for name, value in to_own_names(
            {name: torch.empty(shape) for name, shape in parity.layout("tinyclip_auto_synthetic").items()},
            what="a.pt",
        ).items()
    }
    with torch.device("meta"):
        towers = make_auto_for(shapes)
    assert {name: tuple(value.shape) for name, value in towers.state_dict().items()} == shapes


def test_one_tensor_under_two_wrappers_is_an_error(own: State, wanted: dict[str, tuple[int, ...]]) -> None:
    twice = {"image_encoder_without_ddp.visual.proj": own["image.proj"]}
    assert "1 unexpected" in refusal(as_tinyclip(own) | twice, wanted)


# Positions


@torch.no_grad()
def test_a_grid_is_resized_as_open_clip_does_it() -> None:
    from types import SimpleNamespace

    from open_clip.model import resize_pos_embed

    old = torch.randn(1 + 7 * 7, 8)
    state = {"visual.positional_embedding": old}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(9, 9))))
    torch.testing.assert_close(resized_grid(old, 82, what="a"), state["visual.positional_embedding"])
    assert torch.equal(resized_grid(old, 82, what="a")[0], old[0])  # the class token has no place
    assert resized_grid(torch.randn(1, 196, 8), 256, what="a").shape == (1, 256, 8)


@pytest.mark.parametrize("count", [48, 51])
def test_a_grid_that_is_no_square_is_not_resized(count: int) -> None:
    with pytest.raises(WeightsError, match=f"{count} patches and 17 are wanted"):
        resized_grid(torch.zeros(count, 4), 17, what="a.pt")


def test_fewer_tokens_keep_the_first_positions_and_more_are_interpolated() -> None:
    old = torch.randn(16, 4)
    assert torch.equal(resized_text(old, 5, what="a"), old[:5])
    line = torch.arange(4.0).view(4, 1)
    assert resized_text(line, 8, what="a").flatten().tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def test_other_image_and_text_sizes_load_with_resized_positions_and_say_so(
    own: State, caplog: pytest.LogCaptureFixture
) -> None:
    towers = make_small(image_size=48, context_length=8)
    with caplog.at_level(logging.INFO):
        Checkpoint(own, Preprocessing(), "a", "a.pt").load_into(towers)
    assert "a.pt: image.positional_embedding resized from 17 to 37 positions" in caplog.text
    assert "a.pt: text.positional_embedding resized from 16 to 8 positions" in caplog.text
    assert torch.equal(towers.text.positional_embedding, own["text.positional_embedding"][:8])


def test_positions_of_another_width_are_left_for_the_check_to_refuse(own: State) -> None:
    other = {"image.positional_embedding": (37, 128)}
    got = resize_positions(own, other, what="a.pt")
    assert got["image.positional_embedding"] is own["image.positional_embedding"]


def test_attention_biases_by_distance_follow_the_image_size_as_in_timm() -> None:
    import timm

    trunk: Any = timm.create_model("efficientvit_m0", img_size=96)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.uniform_(-1, 1)
    at_96 = {f"image.trunk.{name}": tensor.clone() for name, tensor in trunk.state_dict().items()}
    trunk.set_input_size(img_size=(128, 128))
    at_128 = {f"image.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in at_128.items()}
    assert shapes != {name: tuple(tensor.shape) for name, tensor in at_96.items()}
    got = resize_positions(at_96, shapes, what="a.pt")
    for name, tensor in at_128.items():
        torch.testing.assert_close(got[name], tensor)


# Soups


def test_a_soup_is_the_weighted_mean_whatever_the_scale_of_the_weights() -> None:
    states = {name: {"w": torch.tensor([value]).half()} for name, value in (("a", 1.0), ("b", 5.0))}
    assert average(states, {"a": 3, "b": 1})["w"].tolist() == [2.0]
    assert average(states, {"a": 0.3, "b": 0.1})["w"].dtype == torch.float32


def test_integers_are_not_averaged() -> None:
    counters = {name: {"bn.num_batches_tracked": torch.tensor(count)} for name, count in (("a", 4), ("b", 9))}
    assert average(counters, {"a": 1, "b": 1})["bn.num_batches_tracked"] == 9
    tables = {name: {"index": torch.tensor([value])} for name, value in (("a", 1), ("b", 2))}
    with pytest.raises(WeightsError, match="No soup of a and b: their integers index differ"):
        average(tables, {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("other", "says"),
    [({"v": torch.zeros(2)}, "2 names are in one only: v, w"), ({"w": torch.zeros(3)}, r"w is \[2\].*\[3\]")],
)
def test_only_checkpoints_of_the_same_names_and_shapes_make_a_soup(other: State, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        average({"a": {"w": torch.zeros(2)}, "b": other}, {"a": 1, "b": 1})


@pytest.mark.parametrize("share", [0, -1, float("nan"), float("inf")])
def test_a_share_must_be_positive(share: float) -> None:
    with pytest.raises(WeightsError, match="positive, finite weights"):
        average({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, {"a": 1, "b": share})


# Loading


def record(tag: str = "v1", licence: str = "MIT", **facts: Any) -> Pretrained:
    return Pretrained(
        tag=tag, url=f"http://localhost/{tag}.pt", licence=licence, training_data="x", paper="x",
        preprocessing=Preprocessing(interpolation="bilinear"), **facts,
    )  # fmt: skip


def saved(path: Path, state: State) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


def test_a_file_loads_into_towers_and_is_labelled_with_its_name_and_hash(tmp_path: Path, own: State) -> None:
    checkpoint = load(entry_of(make_small), saved(tmp_path / "tuned.safetensors", as_clip(own)))
    assert re.fullmatch(r"tuned\.safetensors@[0-9a-f]{8}", checkpoint.label)
    assert checkpoint.preprocessing == Preprocessing()
    towers = make_small()
    checkpoint.load_into(towers)
    assert_same(towers.state_dict(), own)


def test_a_tag_brings_its_own_preprocessing_and_label(
    tmp_path: Path, own: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "x.safetensors", as_open_clip(own))
    asked: list[str] = []
    monkeypatch.setattr(load_module, "files_of", lambda record, model: asked.append(record.tag) or (path,))
    entry = entry_of(make_small, record("v1"), record("v2"))
    for choice in ("v2", True):
        checkpoint = load(entry, choice)
        assert re.fullmatch(rf"{asked[-1]}@[0-9a-f]{{8}}", checkpoint.label)
        assert checkpoint.preprocessing.interpolation == "bilinear"
    assert asked == ["v2", "v1"]


def test_a_hub_repository_is_labelled_with_its_name(
    tmp_path: Path, own: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "model.safetensors", own)
    monkeypatch.setattr(load_module, "fetch_hub", {"hf-hub:me/mine@v1": path}.__getitem__)
    label = load(entry_of(make_small), "hf-hub:me/mine@v1").label
    assert re.fullmatch(r"me/mine@v1@[0-9a-f]{8}", label)


def test_a_soup_of_files_is_their_mean_and_its_label_has_all_of_them(tmp_path: Path, own: State) -> None:
    double = {name: 2 * tensor for name, tensor in own.items()}
    a, b = saved(tmp_path / "a.safetensors", own), saved(tmp_path / "b.safetensors", as_clip(double))
    entry = entry_of(make_small)
    equal = load(entry, [a, b])
    assert re.fullmatch(r"soup\(a\.safetensors@\w{8}\+b\.safetensors@\w{8}\)", equal.label)
    torch.testing.assert_close(equal.tensors["image.proj"], 1.5 * own["image.proj"])
    shares = load(entry, {str(a): 3, str(b): 1})
    assert re.fullmatch(r"soup\(3\*a\.safetensors@\w{8}\+1\*b\.safetensors@\w{8}\)", shares.label)
    torch.testing.assert_close(shares.tensors["image.proj"], 1.25 * own["image.proj"])


@pytest.mark.parametrize("choice", [[], {}, ["a.pt", "a.pt"]])
def test_a_soup_of_nothing_or_of_a_thing_twice_is_an_error(choice: Any) -> None:
    with pytest.raises(WeightsError, match="soup"):
        load(entry_of(make_small), choice)


def test_unknown_tags_get_suggestions_and_unknown_files_are_told(tmp_path: Path) -> None:
    entry = entry_of(make_small, record("openai"))
    with pytest.raises(UnknownNameError, match="Did you mean 'openai'"):
        load(entry, "opnai")
    with pytest.raises(WeightsError, match=r"nothing\.pt does not exist"):
        load(entry, str(tmp_path / "nothing.pt"))
    with pytest.raises(WeightsError, match=r"~no_such_user/here/x\.pt does not exist"):
        load(entry, "~no_such_user/here/x.pt")
    with pytest.raises(WeightsError, match="has no published checkpoint"):
        load(entry_of(make_small), True)


def test_a_restricting_licence_is_told_once_and_a_permissive_one_never(
    tmp_path: Path, own: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "x.safetensors", own)
    monkeypatch.setattr(load_module, "files_of", lambda record, model: (path,))
    entry = entry_of(make_small, record("free"), record("bound", licence="research only"))
    with caplog.at_level(logging.WARNING):
        for tag in ("free", "bound", "bound"):
            load(entry, tag)
    assert [message for message in caplog.messages if "licence" in message] == [
        "small.bound is not free for every use. Its licence: research only."
    ]


def test_towers_keep_their_weights_when_a_checkpoint_does_not_fit(own: State) -> None:
    towers: nn.Module = make_small()
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    broken = {name: tensor for name, tensor in own.items() if name != "text.ln_final.bias"}
    with pytest.raises(WeightsError, match="does not fit"):
        Checkpoint(broken, Preprocessing(), "a", "a.pt").load_into(towers)
    assert_same(towers.state_dict(), before)
