"""Rewrites: what each does to the graph, that embeddings stay, and that one which changes them is refused."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bad_models import (
    FLOAT,
    INT32,
    W,
    constants,
    conv,
    filled_mask,
    masked_attention,
    model,
    node,
    pixels,
    single_mask,
)
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import VisionTransformer
from strangers import strangers_model
from timm.layers.attention import Attention
from timm.models.efficientvit_mit import LiteMLA
from timm.models.efficientvit_msra import LocalWindowAttention
from timm.models.fastvit import Attention as FastAttention
from timm.models.fastvit import MobileOneBlock
from timm.utils.model import reparameterize_model
from tiny import DIM, TinyText, tiny_model
from torch import Tensor, nn

from lpcvc_zoo.backbones._pruned import PrunedAttention
from lpcvc_zoo.backbones._towers import pool_at_eot, small_text_tower
from lpcvc_zoo.backbones.text_transformer import TextShape
from lpcvc_zoo.contract import CONTRACTS, TOWERS, Contract
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.errors import ExportError, UnknownNameError
from lpcvc_zoo.exporting import graphs, pooling, rewrites
from lpcvc_zoo.exporting import onnx as onnx_room
from lpcvc_zoo.exporting.artifact import load_artifact
from lpcvc_zoo.exporting.attention import split_attention
from lpcvc_zoo.exporting.cache import cached_export, export_key
from lpcvc_zoo.exporting.cascaded import windows_4d
from lpcvc_zoo.exporting.lint import lint
from lpcvc_zoo.exporting.lint.graph import Graph
from lpcvc_zoo.exporting.modules import cls_to_average, linear_attention
from lpcvc_zoo.exporting.onnx import export
from lpcvc_zoo.exporting.rewrites import REWRITES, SETS, Rewrite, resolve
from lpcvc_zoo.fuse import fuse
from lpcvc_zoo.model import Towers
from lpcvc_zoo.registry import build, get_entry, list_models

WIDTH, HEADS, TOKENS = 32, 4, 10


def filled(module: nn.Module) -> nn.Module:
    """Every weight random, biases and norms too: zeros and ones would hide what gets lost."""
    torch.manual_seed(2)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def in_onnx(module: nn.Module, given: Tensor) -> onnx.ModelProto:
    return onnx_room.to_onnx(module, given.numpy(), "x", "y", "tower")


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


class Masked(nn.Module):
    """An attention called as open_clip's block calls it, with a causal mask."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attn = attention
        mask = torch.full((TOKENS, TOKENS), -100.0).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.attn(hidden, hidden, hidden, need_weights=False, attn_mask=self.mask)[0]


ATTENTIONS = {
    "torch's own, packed": (
        lambda: Masked(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)), (2, TOKENS, WIDTH)
    ),
    "torch's own, without biases": (
        lambda: Masked(nn.MultiheadAttention(WIDTH, HEADS, bias=False, batch_first=True)), (2, TOKENS, WIDTH)
    ),
    "pruned to fewer heads": (lambda: Masked(PrunedAttention(WIDTH, 3, 8)), (2, TOKENS, WIDTH)),
    "timm's, over tokens": (
        lambda: nn.Sequential(Attention(WIDTH, HEADS, qkv_bias=True)), (2, TOKENS, WIDTH)
    ),
    "FastViT's, over pixels": (lambda: nn.Sequential(FastAttention(WIDTH, head_dim=8)), (2, WIDTH, 3, 4)),
    "CLIP-ResNet's pooling": (lambda: nn.Sequential(AttentionPool2d(3, WIDTH, HEADS, 24)), (2, WIDTH, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_split_attention_computes_the_same_for_every_attention_that_it_replaces(kind: str) -> None:
    make, shape = ATTENTIONS[kind]
    module, given = filled(make()), tokens(*shape)
    with torch.no_grad():
        before = module(given)
        assert split_attention(module) == 1
        torch.testing.assert_close(module(given), before, rtol=1e-4, atol=1e-5)
    assert split_attention(module) == 0


UNKNOWN = {
    "a bias for keys": lambda: nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, batch_first=True),
    "another width of keys": lambda: nn.MultiheadAttention(WIDTH, HEADS, kdim=8, batch_first=True),
    "norms of queries": lambda: Attention(WIDTH, HEADS, qk_norm=True, norm_layer=nn.LayerNorm),
    "tokens first": lambda: nn.MultiheadAttention(WIDTH, HEADS),
    "no head left": lambda: PrunedAttention(WIDTH, 0, 8),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_attention_that_is_not_understood_stays_as_it_is(kind: str) -> None:
    assert split_attention(nn.Sequential(UNKNOWN[kind]())) == 0


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(
    ("side", "batch", "heads"), [(14, 1, 2), (21, 2, 1), (10, 2, 4), (7, 2, 2), (5, 1, 2)]
)
def test_attention_in_windows_is_the_same_in_four_axes_padded_batched_or_whole(
    side: int, batch: int, heads: int, folded: bool
) -> None:
    attention = LocalWindowAttention(32, 8, heads, attn_ratio=4 // heads, resolution=side)
    module, given = filled(nn.Sequential(attention)), tokens(batch, 32, side, side)
    if folded:
        module = reparameterize_model(module)
    most = 0

    class Axes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal most
            out = func(*args, **(kwargs or {}))
            most = max([most, *(o.dim() for o in (out if isinstance(out, tuple | list) else [out]))])
            return out

    with torch.no_grad():
        before = module(given)
        assert windows_4d(module) == 1
        with Axes():
            after = module(given)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert most == 4
    assert windows_4d(module) == 0


def kinds(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(each.op_type for each in proto.graph.node)


def axes(module: nn.Module, given: Tensor) -> int:
    """The most axes that a tensor of its exported graph has."""
    graph = Graph(in_onnx(module, given))
    return max(len(graph.shape(name)) for each in graph.nodes() for name in each.output)


def test_windows_have_four_axes_in_the_graph_too() -> None:
    module, given = nn.Sequential(LocalWindowAttention(32, 8, 2, attn_ratio=2)).eval(), tokens(1, 32, 14, 14)
    assert axes(module, given) == 6
    assert windows_4d(module) == 1
    assert axes(module, given) == 4


@pytest.mark.parametrize("batch", [1, 2])
def test_linear_attention_is_the_same_without_padding_its_values(batch: int) -> None:
    module, given = filled(nn.Sequential(LiteMLA(32, 32, dim=8, eps=1e-15))), tokens(batch, 32, 6, 7)
    with torch.no_grad():
        before = module(given)
        pads = [kinds(in_onnx(module, given))["Pad"]]
        assert linear_attention(module) == 1
        torch.testing.assert_close(module(given), before, rtol=1e-4, atol=1e-5)
    assert [*pads, kinds(in_onnx(module, given))["Pad"]] == [1, 0]
    assert linear_attention(module) == 0


@pytest.mark.parametrize(
    "rows", [slice(0, 8), slice(8, 16), slice(9, 10)], ids=["queries", "keys", "one key"]
)
def test_linear_attention_is_the_same_where_nothing_asks_or_answers(rows: slice) -> None:
    """Then the original divides 0 by a number that is 0 in fp16."""
    module, given = filled(nn.Sequential(LiteMLA(32, 32, dim=8, eps=1e-15))), tokens(1, 32, 6, 7)
    with torch.no_grad():
        module[0].qkv.conv.weight[rows] = 0
        before = module(given)
        assert linear_attention(module) == 1
        torch.testing.assert_close(module(given), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "rewrite", "shape"),
    [
        (lambda: LiteMLA(32, 32, dim=8), linear_attention, (1, 32, 6, 7)),
        (lambda: AttentionPool2d(6, WIDTH, HEADS, 24), split_attention, (1, WIDTH, 6, 6)),
    ],
    ids=["linear attention", "pooling"],
)
def test_no_product_of_one_row_is_left_which_one_chip_gets_wrong(make, rewrite, shape) -> None:
    rows: list[int] = []

    class Rows(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.bmm.default and out.shape[0] > 1:
                rows.append(out.shape[1])
            return out

    module = filled(nn.Sequential(make()))
    assert rewrite(module) == 1
    with torch.no_grad(), Rows():
        module(tokens(*shape))
    assert 1 not in rows


def vision(pool: str = "tok") -> VisionTransformer:
    return filled(VisionTransformer(32, 8, 32, 2, 2, 2.0, output_dim=DIM, pool_type=pool))


def test_average_pooling_drops_the_class_token_and_nothing_else() -> None:
    tower, given = vision(), tokens(2, 3, 32, 32)
    counts, plain = [], kinds(in_onnx(tower, given))
    tower.transformer.register_forward_pre_hook(lambda _, args: counts.append(args[0].shape[1]))
    with torch.no_grad():
        tower(given)
        module = nn.Sequential(tower)
        assert cls_to_average(module) == 1
        averaged = module(given)
        assert counts == [17, 16]
        # the same network where it holds a class token that nobody attends to, pooled by average
        patches = tower.ln_pre(tower.conv1(given).flatten(2).mT + tower.positional_embedding[1:])
        expected = tower.ln_post(tower.transformer(patches).mean(1)) @ tower.proj
    torch.testing.assert_close(averaged, expected)
    written = kinds(in_onnx(module, given))
    assert [(each["Concat"], each["ReduceMean"]) for each in (plain, written)] == [(1, 0), (0, 1)]
    assert cls_to_average(nn.Sequential(vision("avg"))) == 0


def run(proto: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


@pytest.mark.parametrize("make", [masked_attention, filled_mask, single_mask])
@pytest.mark.parametrize("mask", [-np.inf, float(np.finfo(np.float32).min)])
def test_far_masks_become_finite_and_mask_as_before(make, mask: float) -> None:
    proto = make(mask)
    given = np.random.default_rng(1).normal(size=(2, 8, 8)).astype(np.float32)
    before = run(proto, given)
    assert graphs.finite_masks(proto) == 1
    np.testing.assert_allclose(run(proto, given), before, atol=1e-7)
    assert min(value.min() for _, value in Graph(proto).constants()) == graphs.MASKED
    assert graphs.finite_masks(proto) == 0


def test_a_far_constant_that_is_no_mask_stays() -> None:
    proto = pixels(node("Mul", "p far", "f", "mul"), conv("f w", "q", "conv"), far=-1e6, w=W)
    assert graphs.finite_masks(proto) == 0


def test_ids_are_looked_up_without_a_cast_to_int64() -> None:
    proto = model(
        ("text", INT32, [1, 7]), ("y", FLOAT, [1, 7, 4]),
        [node("Cast", "text", "wide", "cast", to=7), node("Gather", "table wide", "y", "embed")],
        constants(table=np.arange(40, dtype=np.float32).reshape(10, 4)),
    )  # fmt: skip
    ids = np.arange(7, dtype=np.int32)[None]
    before = run(proto, ids)
    assert graphs.int32_ids(proto) == 1
    assert [each.op_type for each in proto.graph.node] == ["Gather"]
    np.testing.assert_array_equal(run(proto, ids), before)


def operators(artifact, tower) -> Counter[str]:
    return kinds(onnx.load(artifact.path(tower)))


def test_the_npu_set_cures_a_strangers_towers_and_the_manifest_says_how(tmp_path) -> None:
    plain = export(strangers_model(), tmp_path / "plain")
    model = strangers_model()
    before = copy.deepcopy(model.state_dict())
    artifact = export(model, tmp_path / "npu", rewrites="npu")
    assert artifact.manifest.rewrites == SETS["npu"]
    torch.testing.assert_close(dict(model.state_dict()), dict(before))  # the caller's model is left alone
    rules = {f.rule for f in lint(plain.path("text")).findings}
    assert rules >= {"infinite-constant", "int64-path", "packed-qkv"}
    assert not lint(artifact.path("text"), activations=True).findings
    effects = {effect.rewrite: effect for effect in artifact.manifest.text.effects}
    split = effects["split_attention"]
    assert split.places == 1
    assert split.nodes_before == plain.manifest.text.nodes > split.nodes_after
    assert effects["finite_masks"].places == effects["int32_ids"].places == 1
    assert effects["windows_4d"].places == 0
    assert effects["windows_4d"].min_cosine is None
    for tower in ("image", "text"):
        assert artifact.manifest.tower(tower).parity.min_cosine > 0.9999999


def test_exact_gelu_is_exported_as_onnx_runtime_fuses_it(tmp_path) -> None:
    artifact = export(strangers_model(), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(artifact.path("image")), options, providers=["CPUExecutionProvider"])
    found = Counter(each.op_type for each in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (operators(artifact, "image")["Erf"], found["Erf"], found["Gelu"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("gelu_tanh", 0.99999, 1.0), ("gelu_sigmoid", 0.99, 0.9999999)]
)
def test_gelu_is_exchanged_in_the_graph_and_its_cost_is_written_down(name, least, most, tmp_path) -> None:
    artifact = export(strangers_model(), tmp_path, rewrites=name)
    found = operators(artifact, "image")
    assert (found["Erf"], found["Sigmoid"]) == (0, 1)
    (effect,) = artifact.manifest.image.effects
    assert effect.places == 1
    assert least <= effect.min_cosine <= most + 1e-12
    assert artifact.manifest.image.parity.min_cosine == pytest.approx(effect.min_cosine, abs=1e-7)


class Pooled(nn.Module):
    """Embedded ids, of which one is picked: by CLIP's way of finding it, or by another."""

    def __init__(self, pool) -> None:
        super().__init__()
        self.embedding, self.pool = nn.Embedding(49408, 8), pool

    def forward(self, ids: Tensor) -> Tensor:
        return self.pool(self.embedding(ids), ids)


def branched() -> nn.Module:
    return filled(nn.Sequential(MobileOneBlock(3, 8, 3, stride=2), MobileOneBlock(8, 8, 3), nn.Flatten()))


CAPTION = torch.tensor([[49406, 320, 1125, 49407, 0, 0]], dtype=torch.int32)
WHEN_BUILT = {
    "branches and BatchNorm are folded": (
        branched,
        lambda: fuse(Towers(branched(), TinyText()), 32, 77).image,
        tokens(1, 3, 32, 32),
        {"unfused-branches"},
        ({"Conv": 4, "BatchNormalization": 1}, {"Conv": 2}),
    ),
    "the end of the text is met, not searched for": (
        lambda: filled(Pooled(lambda hidden, ids: hidden[torch.arange(1), ids.argmax(dim=-1)])),
        lambda: filled(Pooled(lambda hidden, ids: pool_at_eot(hidden, ids, 49407))),
        CAPTION,
        {"search", "scattered-access"},
        ({"ArgMax": 1, "GatherND": 1}, {}),
    ),
}


@pytest.mark.parametrize("what", WHEN_BUILT)
def test_what_is_done_when_a_model_is_built_cures_its_graph_and_keeps_its_embeddings(what, tmp_path) -> None:
    before, after, given, rules, operators_of = WHEN_BUILT[what]
    embeddings = []
    for make, expected, kinds in zip((before, after), (rules, set()), operators_of, strict=True):
        path = tmp_path / "tower.onnx"
        proto = onnx_room.export_module(make(), given.numpy(), "x", "y", path)
        assert {f.rule for f in lint(path).findings} & rules == expected
        asked = {"Conv", "ArgMax", "GatherND", "BatchNormalization"}
        assert Counter(each.op_type for each in proto.graph.node if each.op_type in asked) == kinds
        embeddings.append(run(proto, given.numpy()))
    np.testing.assert_allclose(*embeddings, atol=1e-5)


def test_simplify_folds_constants_and_drops_what_has_no_effect() -> None:
    proto = model(
        ("x", FLOAT, [1, 8]), ("y", FLOAT, [8, 1]),
        [
            node("Identity", "x", "a", "nothing"),
            node("Add", "two three", "five", "fold"),
            node("Mul", "a five", "b", "times"),
            node("Shape", "b", "size", "shape"),
            node("Slice", "size one two_ends", "half", "cut"),
            node("Concat", "half one", "turned", "join", axis=0),
            node("Reshape", "b turned", "y", "reshape"),
        ],
        constants(two=2.0, three=3.0, one=np.array([1]), two_ends=np.array([2])),
    )  # fmt: skip
    given = np.arange(8, dtype=np.float32)[None]
    before = run(proto, given)
    assert graphs.simplify(proto) == 5
    assert [each.op_type for each in proto.graph.node] == ["Mul", "Reshape"]
    np.testing.assert_array_equal(run(proto, given), before)


def last_mlp(proto: onnx.ModelProto, hidden: int) -> list[int]:
    """Of how many tokens the products are that make ``hidden`` values each, block by block."""
    graph = Graph(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    made = [graph.shape(each.output[0]) for each in graph.nodes("MatMul")]
    return [int(np.prod(shape[:-1])) for shape in made if shape[-1] == hidden]


POOLED = {
    "a class token": (vision, tokens(1, 3, 32, 32), 64, 17),
    "the end of the text": (
        lambda: filled(small_text_tower(TextShape(width=64, layers=2), TextSpec(), DIM)), CAPTION, 256, 6
    ),
}  # fmt: skip


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("what", POOLED)
def test_the_last_mlp_runs_for_the_pooled_token_alone_and_gives_the_same(what: str, split: bool) -> None:
    make, given, hidden, length = POOLED[what]
    module = nn.Sequential(make())
    if split:
        assert split_attention(module) == 2
    proto = in_onnx(module, given)
    before = run(proto, given.numpy())
    assert last_mlp(proto, hidden) == [length, length]
    nodes = len(proto.graph.node)
    assert pooling.early_pool(proto) >= 5
    assert last_mlp(proto, hidden) == [length, 1]
    assert len(proto.graph.node) == nodes + 1  # pooled twice: before the MLP, and what goes around it
    np.testing.assert_allclose(run(proto, given.numpy()), before, rtol=1e-5, atol=1e-6)
    assert pooling.early_pool(proto) == 0


RELU = node("Relu", "scaled", "a", "relu")
PICKED, LAST = node("Gather", "a first", "b", "pool", axis=1), node("Neg", "b", "y", "last")
MIXED = node("ReduceMax", "a axis", "c", "all", keepdims=0), node("Sub", "b c", "y", "last")


@pytest.mark.parametrize(
    ("further", "moved"),
    [
        ([RELU, PICKED, LAST], 2),
        ([RELU, node("Gather", "a first", "y", "pool", axis=1)], 0),
        ([node("Add", "scaled places", "a", "by place"), PICKED, LAST], 0),
        ([node("Softmax", "scaled", "a", "over tokens", axis=1), PICKED, LAST], 0),
        ([RELU, PICKED, *MIXED], 0),
    ],
    ids=["all move", "pooled is the output", "differs by place", "over the tokens", "needed whole"],
)
def test_what_does_not_act_on_each_token_alone_or_is_needed_whole_stays(further, moved: int) -> None:
    proto = model(
        ("x", FLOAT, [1, 5, 8]), ("y", FLOAT, [1, 8]),
        [node("Mul", "x two", "scaled", "scale"), *further],
        constants(two=2.0, first=np.array(0), axis=np.array([1]), places=tokens(5, 8).numpy()),
    )  # fmt: skip
    given = tokens(1, 5, 8).numpy()
    before = run(proto, given)
    assert pooling.early_pool(proto) == moved
    np.testing.assert_allclose(run(proto, given), before, rtol=1e-6)


def test_a_rewrite_that_changes_the_embeddings_is_refused_by_name(tmp_path, monkeypatch) -> None:
    def break_it(encoder: nn.Module) -> int:
        nn.init.normal_(list(encoder.tower.parameters())[-2])
        return 1

    broken = replace(REWRITES["split_attention"], module=break_it)
    monkeypatch.setitem(rewrites.REWRITES, "split_attention", broken)
    with pytest.raises(ExportError, match="The rewrite split_attention changes the embeddings: worst cosine"):
        export(tiny_model("lpcvc2026_sample"), tmp_path, rewrites="split_attention")


def test_a_rewrite_that_gives_nan_is_refused(tmp_path, monkeypatch) -> None:
    def poison(proto: onnx.ModelProto) -> int:
        for tensor in proto.graph.initializer:
            if "projection.weight" in tensor.name:
                value = np.full_like(onnx.numpy_helper.to_array(tensor), np.nan)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return 1

    monkeypatch.setitem(rewrites.REWRITES, "simplify", replace(REWRITES["simplify"], graph=poison))
    with pytest.raises(ExportError, match="rewrite simplify"):
        export(tiny_model("lpcvc2026_sample"), tmp_path, rewrites="simplify")


def test_a_broken_conversion_is_told_also_where_the_rewrite_may_change_the_embeddings(
    tmp_path, monkeypatch
) -> None:
    model = strangers_model(nn.Sequential(vision()))
    convert = onnx_room.to_onnx

    def lossy(module: nn.Module, *more) -> onnx.ModelProto:
        module = copy.deepcopy(module)
        nn.init.normal_(list(module.parameters())[-1])
        return convert(module, *more)

    def problem() -> str | None:
        to = tmp_path / "image_encoder.onnx"
        made, said = onnx_room._export_tower(model, "image", to, ("cls_to_average",))
        assert made.parity.min_cosine < 0.9999  # to the model as built
        return said

    assert problem() is None
    monkeypatch.setattr(onnx_room, "to_onnx", lossy)
    assert problem().startswith("image_encoder.onnx: worst cosine to the rewritten model in torch ")


def test_names_resolve_in_the_order_of_application_and_suggest_the_nearest() -> None:
    assert resolve("none") == ()
    assert resolve("simplify,split_attention") == ("split_attention", "simplify")
    assert resolve(["npu", "gelu_tanh"])[-2:] == ("gelu_tanh", "simplify")
    with pytest.raises(UnknownNameError, match="split_attention"):
        resolve("split_atention")


@pytest.mark.parametrize(
    ("step", "where"),
    [("fold", "--no-fuse"), ("cut_text", "--text-length N"), ("pool_at_eot", "All exports pool so")],
)
def test_what_is_done_without_a_rewrite_says_where(step: str, where: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown rewrite '{step}'.*{where}"):
        resolve(step)


def test_the_cache_keeps_exports_with_and_without_rewrites_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path))
    name = "efficientvit_m0_text_s"
    keys = {export_key(name, rewrites=chosen) for chosen in ("none", "npu", "simplify")}
    assert len(keys) == 3
    assert export_key(name, rewrites=SETS["npu"]) == export_key(name, rewrites="npu")


def test_every_rewrite_says_what_it_does_and_changes_modules_or_a_graph() -> None:
    assert all(isinstance(each, Rewrite) and each.what for each in REWRITES.values())
    assert all((each.module is None) != (each.graph is None) for each in REWRITES.values())
    # A set is safe for every checkpoint: what no bound holds is never in one.
    assert all(REWRITES[name].min_cosine for names in SETS.values() for name in names)


def test_the_command_warns_of_a_rewrite_that_no_bound_holds_and_lists_all(
    tmp_path, monkeypatch, capsys
) -> None:
    from lpcvc_zoo import registry
    from lpcvc_zoo.cli import main

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="0"):
            main(["export", *arguments])
        return "".join(capsys.readouterr())

    monkeypatch.setenv("COLUMNS", "1000")
    assert ", ".join(REWRITES) in said("--help")
    monkeypatch.setattr(registry, "build", lambda name, **options: strangers_model(nn.Sequential(vision())))
    shown = said("efficientvit_m0_text_s", "--rewrites", "cls_to_average", "--out", str(tmp_path))
    (effect,) = load_artifact(tmp_path).manifest.image.effects
    assert effect.min_cosine < 0.9999
    cost = f"worst cosine to before {effect.min_cosine:.4f}"
    assert f"cls_to_average makes another model of the image tower: {cost}" in shown
    assert f"lpcvc-zoo evaluate {tmp_path}" in shown
    assert "of the text tower" not in shown


def npu_graph(module: nn.Module, contract: Contract, tower: str) -> onnx.ModelProto:
    """As ``export(rewrites="npu")`` makes it, without what each rewrite costs to measure."""
    module = copy.deepcopy(module)
    chosen = [REWRITES[name] for name in resolve("npu")]
    for each in chosen:
        if each.module:
            each.module(module)
    proto = onnx_room.to_onnx(
        module, onnx_room.parity_inputs(contract, tower)[0], tower, f"{tower}_embedding", tower
    )
    for each in chosen:
        if each.graph:
            each.graph(proto)
    return proto


TRAINED = "efficientnet_lite0_128_text_xxs"  # comes with its weights
FAMILIES = [name for name in list_models() if get_entry(name).quick]
# The towers of ViT-B/32 are TinyCLIP's, but for their size. How a contract's inputs come in is the same for
# all entries: every family is seen under both, one tower under each.
TOWERS_UNDER = [
    (name, contract, tower)
    for name, contract, tower in product(FAMILIES, CONTRACTS, TOWERS)
    if name != "openai_clip_vit_b32"
    and ((contract == "lpcvc2026") == (tower == "image") or (name, tower) == (TRAINED, "image"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "contract", "tower"), TOWERS_UNDER)
def test_lint_finds_nothing_at_all_in_our_own_npu_exports(name, contract, tower, tmp_path) -> None:
    trained = name == TRAINED
    model = build(name, contract=contract, pretrained=trained)
    module = model.image_encoder if tower == "image" else model.text_encoder
    path = tmp_path / "tower.onnx"
    onnx_room.write_checked(npu_graph(module, model.contract, tower), path)
    report = lint(path, contract=model.contract, tower=tower, activations=trained)
    assert (report.findings, report.problems) == ((), ())


@pytest.mark.slow
def test_the_command_exports_with_the_npu_set_and_finds_nothing(cache, capsys) -> None:
    from lpcvc_zoo.cli import main

    name = "efficientvit_m0_text_s"  # the cheapest; has windows, and attention in both towers
    with pytest.raises(SystemExit) as ended:
        main(["lint", name, "--contract", "lpcvc2026_sample", "--fail-on", "info", "--json"])
    assert ended.value.code == 0
    assert [report["findings"] for report in json.loads(capsys.readouterr().out)] == [[], []]
    artifact = cached_export(name, contract="lpcvc2026_sample", rewrites="npu")
    assert artifact.manifest.text.effects[0].places > 0
