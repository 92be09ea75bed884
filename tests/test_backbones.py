"""Every built-in model: its facts, its folding, its text tower's pooling, masks and pads."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from lpcvc_zoo.backbones._towers import MASKED, TextTower, clip_towers_of
from lpcvc_zoo.backbones.tinyclip import config, make, make_auto_for
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.fuse import fuse
from lpcvc_zoo.model import DualEncoder, Towers
from lpcvc_zoo.registry import get_entry, list_models, untrained

BUILDABLE = [get_entry(name) for name in list_models() if get_entry(name).make_for is None]
ORDINARY = [entry for entry in BUILDABLE if entry.default_sweep]  # the other needs 1.7 GB
EOT = 49407
TEXTS = ["a red car.", "the woman on the left, wearing a hat.", ""]


@pytest.fixture(scope="module", params=ORDINARY, ids=lambda entry: entry.name)
def built(request: pytest.FixtureRequest) -> tuple[Entry, Towers]:
    """An entry's towers, unfused, with statistics and scales as training would leave them.

    Fresh ones hide errors: a BatchNorm is then the identity, and a block scaled by 1e-5 does nothing.
    """
    entry: Entry = request.param
    towers = untrained(entry)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in towers.modules():
            if isinstance(part, _BatchNorm):
                part.running_mean.normal_(0, 0.05, generator=generator)
                part.running_var.uniform_(0.8, 1.2, generator=generator)
                part.weight.uniform_(0.8, 1.2, generator=generator)
                part.bias.normal_(0, 0.05, generator=generator)
        for name, parameter in towers.named_parameters():
            if "layer_scale" in name or name.endswith("gamma"):
                parameter.uniform_(0.1, 0.3, generator=generator)
    return entry, towers


def under(entry: Entry, towers: Towers, contract: str, **more: int) -> DualEncoder:
    return DualEncoder(towers, entry, get_contract(contract), entry.preprocessing, **more).eval()


def image(entry: Entry) -> Tensor:
    return torch.rand(1, 3, entry.image_size, entry.image_size, generator=torch.Generator().manual_seed(1))


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def gmacs(tower: nn.Module, example: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        tower(example)
    return float(counter.get_total_flops() / 2e9)


@pytest.mark.slow
def test_parameters_and_gmacs_are_what_the_entry_states(built, monkeypatch) -> None:
    entry, towers = built
    for tower, stated in ((towers.image, entry.image_params), (towers.text, entry.text_params)):
        assert sum(parameter.numel() for parameter in tower.parameters()) == stated
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one operation would count for nothing
    try:
        ids = torch.zeros(1, entry.text.context_length, dtype=torch.int32)
        assert gmacs(towers.image, image(entry)) == pytest.approx(entry.image_gmacs, rel=0.01)
        assert gmacs(towers.text, ids) == pytest.approx(entry.text_gmacs, rel=0.01)
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def test_embeddings_have_the_stated_size_and_unit_length(built) -> None:
    entry, towers = built
    model = under(entry, towers, "lpcvc2026_sample")
    assert model.text_depth == entry.text_layers
    text = model.contract.prepare_text(TEXTS)
    with torch.no_grad():
        for embedding, count in (
            (model.encode_image(torch.rand(2, 3, 224, 224)), 2),
            (model.encode_text(text), 3),
        ):
            assert embedding.shape == (count, entry.embed_dim)
            model.contract.check_embedding(embedding.numpy(), entry.embed_dim)


def test_both_contracts_give_one_text_embedding_and_pads_are_put_back(built) -> None:
    entry, towers = built
    both = [under(entry, towers, name) for name in ("lpcvc2026", "lpcvc2026_sample")]
    with torch.no_grad():
        first, second = (model.encode_text(model.contract.prepare_text(TEXTS)) for model in both)
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
        ids = torch.from_numpy(get_contract("lpcvc2026_sample").prepare_text(TEXTS))
        after_eot = ((ids == EOT).cumsum(1) - (ids == EOT).int()) > 0
        padded = torch.where(after_eot, entry.text.pad_id, ids).int()
        bare = towers.text(padded[:, : entry.text.context_length])
        torch.testing.assert_close(first, nn.functional.normalize(bare, dim=1), atol=1e-6, rtol=0)


def test_a_shorter_sequence_is_exact_for_causal_towers_and_a_trade_for_others(built) -> None:
    entry, towers = built
    lengths = (entry.text.context_length, 16)
    whole, cut = (under(entry, towers, "lpcvc2026", text_length=length) for length in lengths)
    text = whole.contract.prepare_text(TEXTS)
    with torch.no_grad():
        difference = (whole.encode_text(text) - cut.encode_text(text)).abs().max()
    assert (float(difference) < 1e-5) == entry.text.causal


def test_masks_are_finite_even_in_half_precision(built) -> None:
    _, towers = built
    for tensor in towers.text.buffers():
        assert tensor.half().isfinite().all()


def test_fused_equals_unfused_and_leaves_no_batch_norm(built) -> None:  # last: it changes the towers
    entry, towers = built
    ids = torch.zeros(2, entry.text.context_length, dtype=torch.int32)
    ids[:, :3] = torch.tensor([[49406, 320, EOT], [49406, 2368, EOT]])
    with torch.no_grad():
        want = towers.image(image(entry)), towers.text(ids)
        fuse(towers, entry.image_size, entry.text.context_length)
        got = towers.image(image(entry)), towers.text(ids)
    assert relative(got[0], want[0]) < 1e-5
    assert relative(got[1], want[1]) < 1e-5
    assert not [name for name, part in towers.named_modules() if isinstance(part, _BatchNorm)]


@pytest.mark.parametrize("causal", [True, False])
def test_the_text_tower_pools_and_masks_as_open_clip_does(causal: bool) -> None:
    theirs = open_clip.transformer.TextTransformer(
        width=64, heads=2, layers=3, output_dim=32, no_causal_mask=not causal
    ).eval()
    ours = TextTower(theirs, EOT).eval()
    ids = torch.zeros(2, 77, dtype=torch.int64)
    ids[0, :4] = torch.tensor([49406, 320, 1125, EOT])
    ids[1] = torch.randint(1, 49000, (77,), generator=torch.Generator().manual_seed(0))
    ids[1, 76] = EOT
    with torch.no_grad():
        torch.testing.assert_close(ours(ids.int()), theirs(ids), atol=1e-5, rtol=0)
    if causal:
        assert ours.attn_mask is not None
        assert ours.attn_mask.min() == MASKED


def test_masked_tokens_weigh_nothing_and_no_weight_is_denormal() -> None:
    mask = torch.full((77, 77), MASKED).triu(1)
    logits = torch.empty(77, 77).uniform_(-15, 15, generator=torch.Generator().manual_seed(0))
    weights = (logits + mask).softmax(dim=-1)
    assert weights.triu(1).max() < 1e-8
    assert weights.min() > torch.finfo(torch.float32).tiny


def test_mobileclip_b_is_apples_network_where_timms_differs() -> None:
    ours, timms = get_entry("mobileclip_b").make(), clip_towers_of("MobileCLIP-B", EOT)
    ours.load_state_dict(timms.state_dict())
    with torch.no_grad():
        difference = relative(
            ours.eval().image(torch.ones(1, 3, 224, 224)), timms.eval().image(torch.ones(1, 3, 224, 224))
        )
    assert difference > 1e-3


def shapes_of(towers: Towers) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in towers.state_dict().items()}


def test_pruned_towers_of_even_size_are_the_ordinary_ones() -> None:
    ordinary = make(config(128, 2, 32, 128, 2)).eval()
    pruned = make_auto_for(shapes_of(ordinary)).eval()
    pruned.load_state_dict(ordinary.state_dict())
    ids = torch.tensor([[49406, 320, EOT, 0]], dtype=torch.int32)
    with torch.no_grad():
        pixels = torch.rand(2, 3, 224, 224)
        torch.testing.assert_close(pruned.image(pixels), ordinary.image(pixels), atol=1e-5, rtol=0)
        torch.testing.assert_close(pruned.text(ids), ordinary.text(ids), atol=1e-5, rtol=0)


def test_pruned_towers_are_uneven_as_the_checkpoint_and_a_layer_may_lose_all_heads() -> None:
    shapes = shapes_of(make(config(128, 2, 32, 128, 2)))
    layer = "image.transformer.resblocks.1."
    shapes |= {
        f"{layer}attn.in_proj_weight": (0, 128),
        f"{layer}attn.out_proj.weight": (128, 0),
        f"{layer}mlp.c_fc.weight": (37, 128),
        "text.transformer.resblocks.0.attn.out_proj.weight": (128, 64),
    }
    towers = make_auto_for(shapes).eval()
    have = shapes_of(towers)
    assert have[f"{layer}mlp.c_proj.weight"] == (128, 37)
    assert have["text.transformer.resblocks.0.attn.in_proj_weight"] == (3 * 64, 128)
    with torch.no_grad():
        embedding = towers.image(torch.rand(1, 3, 224, 224))
    assert embedding.shape == (1, 512)
    assert embedding.isfinite().all()
