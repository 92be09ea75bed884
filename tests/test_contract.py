"""The two named contracts, and every way to break one: the error names the field, the wish and what came."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from lpcvc_zoo import contract as contract_module
from lpcvc_zoo.contract import CONTRACTS, Contract, Embedding, ImageInput, Metric, TextInput, get_contract
from lpcvc_zoo.errors import ContractError, UnknownNameError

RULES, SAMPLE = get_contract("lpcvc2026"), get_contract("lpcvc2026_sample")
BOTH = pytest.mark.parametrize("contract", [RULES, SAMPLE], ids=lambda contract: contract.name)
SOT, EOT = 49406, 49407


def break_image(contract: Contract, array: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        contract.check_image(array)
    return caught.value


def break_text(contract: Contract, array: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        contract.check_text(array)
    return caught.value


def break_embedding(array: Any, dim: int | None = None) -> ContractError:
    with pytest.raises(ContractError) as caught:
        RULES.check_embedding(array, dim)
    return caught.value


def good_image(contract: Contract, batch: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random(contract.image.shape(batch)) * contract.image.high).astype(np.float32)


def good_ids(batch: int = 2) -> np.ndarray:
    ids = np.full((batch, 77), EOT, np.int32)
    ids[:, :4] = [SOT, 320, 1929, 269]
    return ids


def good_text(contract: Contract, batch: int = 2) -> np.ndarray:
    ids = good_ids(batch)
    mask = np.zeros_like(ids)
    mask[:, :5] = 1
    return np.stack([ids, mask]) if contract.text.has_mask else ids


def good_embedding(batch: int = 3, dim: int = 8) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(batch, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# --- what the two contracts say


def test_the_rules_document_s_contract() -> None:
    assert RULES.image.shape(1) == (1, 3, 1024, 1024)
    assert (RULES.image.dtype, RULES.image.layout, RULES.image.channels) == ("float32", "NCHW", "RGB")
    assert (RULES.image.high, RULES.image.fit, RULES.image.shorter_edge) == (255.0, "pad", 1000)
    assert RULES.text.planes == ("input_ids", "attention_mask")
    assert RULES.text.shape(5) == (2, 5, 77)


def test_the_sample_solution_s_contract() -> None:
    assert SAMPLE.image.shape(1) == (1, 3, 224, 224)
    assert (SAMPLE.image.high, SAMPLE.image.fit, SAMPLE.image.shorter_edge) == (1.0, "squash", None)
    assert SAMPLE.text.planes == ("input_ids",)
    assert SAMPLE.text.shape(5) == (5, 77)


@BOTH
def test_what_both_contracts_share(contract: Contract) -> None:
    assert (contract.text.dtype, contract.text.length, contract.text.vocab_size) == ("int32", 77, 49408)
    assert (contract.text.sot_id, contract.text.eot_id, contract.text.pad_id) == (SOT, EOT, EOT)
    assert contract.text.tokenizer == "openai/clip-vit-base-patch32"
    assert (contract.image.name, contract.text.name) == ("image", "text")
    assert contract.embedding.image_name == "image_embedding"
    assert contract.embedding.text_name == "text_embedding"
    assert contract.metric == Metric(k=10, mode="fraction")
    assert contract.metric.label == "recall@10 (fractional)"
    assert (contract.latency_budget_ms, contract.device) == (35.0, "XR2 Gen 2 (Proxy)")


def test_contracts_are_found_by_their_own_name() -> None:
    assert set(CONTRACTS) == {"lpcvc2026", "lpcvc2026_sample"}
    for name in CONTRACTS:
        assert get_contract(name).name == name


def test_an_unknown_contract_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"contract 'lpcvc2062'.*Did you mean 'lpcvc2026'") as caught:
        get_contract("lpcvc2062")
    assert caught.value.suggestions[0] == "lpcvc2026"


def test_a_contract_survives_json() -> None:
    for contract in CONTRACTS.values():
        assert Contract.model_validate_json(contract.model_dump_json()) == contract


def test_the_any_hit_metric_says_so() -> None:
    assert Metric(k=5, mode="any").label == "recall@5 (any-hit)"


# --- records that can't be bent


@pytest.mark.parametrize(
    "part",
    [RULES, RULES.image, RULES.text, RULES.embedding, RULES.metric],
    ids=lambda part: type(part).__name__,
)
def test_every_part_is_frozen_and_refuses_unknown_fields(part: BaseModel) -> None:
    field = next(iter(type(part).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, field, getattr(part, field))
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(part).model_validate({**part.model_dump(), "colour": "BGR"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fit": "pad"}, "needs a square canvas and a shorter_edge"),
        ({"fit": "pad", "shorter_edge": 224}, "shorter_edge below its width"),
        ({"fit": "pad", "shorter_edge": 100, "height": 112}, "square canvas"),
        ({"fit": "pad", "shorter_edge": 0}, "greater than or equal to 1"),
        ({"fit": "squash", "shorter_edge": 100}, "takes no shorter_edge"),
        ({"fit": "crop"}, "'pad' or 'squash'"),
        ({"fit": "squash", "dtype": "float16"}, "float32"),
        ({"fit": "squash", "high": 0}, "greater than 0"),
        ({"fit": "squash", "height": 0}, "greater than or equal to 1"),
    ],
)
def test_an_image_input_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageInput.model_validate({"height": 224, "width": 224, "high": 1.0, **fields})


@pytest.mark.parametrize(
    "fields", [{"planes": ()}, {"planes": ("attention_mask",)}, {"length": 1}, {"dtype": "int64"}]
)
def test_a_text_input_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        TextInput.model_validate({"length": 77, "planes": ("input_ids",), **fields})


# --- images


@BOTH
@pytest.mark.parametrize("batch", [1, 3])
def test_a_good_image_batch_passes_with_both_ends_of_the_range(contract: Contract, batch: int) -> None:
    array = good_image(contract, batch)
    array[0, 0, 0, :2] = 0, contract.image.high
    contract.check_image(array)


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[0],
        lambda a: a[:0],
        lambda a: a[:, :1],
        lambda a: a[..., :-1],
        lambda a: a[..., :-1, :],
        lambda a: a.transpose(0, 2, 3, 1),
        lambda a: a[None],
    ],
    ids=["no batch", "empty batch", "grey", "narrow", "low", "NHWC", "five axes"],
)
def test_a_wrong_image_shape_names_both_shapes(contract: Contract, change: Any) -> None:
    array = change(good_image(contract))
    error = break_image(contract, array)
    side = contract.image.height
    assert (error.field, error.expected) == ("image.shape", f"[N, 3, {side}, {side}] with N >= 1")
    assert error.got == str(list(array.shape))


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16", "int32"])
def test_a_wrong_image_dtype_names_both_types(dtype: str) -> None:
    error = break_image(SAMPLE, good_image(SAMPLE).astype(dtype))
    assert (error.field, error.expected, error.got) == ("image.dtype", "float32", dtype)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_counted(contract: Contract, value: float) -> None:
    array = good_image(contract)
    array[0, 1, 2, 3:5] = value
    error = break_image(contract, array)
    assert error.field == "image.values"
    assert "finite" in error.expected
    assert error.got.startswith("2 ")


def test_pixels_out_of_range_show_the_range_and_what_to_do() -> None:
    array = good_image(SAMPLE)
    array[0, 0, 0, :2] = -2.5, 255
    error = break_image(SAMPLE, array)
    assert (error.field, error.expected) == ("image.values", "values from 0 to 1")
    assert error.got == "-2.5 to 255.0"
    assert "without mean and std" in str(error)


def test_a_pixel_just_out_of_range_is_not_rounded_into_it_in_the_message() -> None:
    array = np.zeros(RULES.image.shape(1), np.float32)
    array[0, 0, 0, 0] = np.nextafter(np.float32(255), np.float32(256))
    error = break_image(RULES, array)
    assert error.got == "0.0 to 255.00002"


@pytest.mark.parametrize(
    "thing", [None, [[1.0]], torch.zeros(1, 3, 224, 224)], ids=lambda x: type(x).__name__
)
def test_what_is_no_numpy_array_is_named(thing: Any) -> None:
    for error, field in [
        (break_image(SAMPLE, thing), "image"),
        (break_text(SAMPLE, thing), "text"),
        (break_embedding(thing), "embedding"),
    ]:
        assert (error.field, error.expected, error.got) == (field, "a numpy array", type(thing).__name__)


# --- texts


@BOTH
@pytest.mark.parametrize("batch", [1, 4])
def test_a_good_text_batch_passes(contract: Contract, batch: int) -> None:
    contract.check_text(good_text(contract, batch))


@BOTH
def test_a_text_that_fills_the_whole_row_passes(contract: Contract) -> None:
    array = good_text(contract, 1)
    (array[0] if contract.text.has_mask else array)[0, 4:-1] = 320
    if contract.text.has_mask:
        array[1] = 1
    contract.check_text(array)


@pytest.mark.parametrize(
    ("contract", "array", "expected"),
    [
        (RULES, good_text(SAMPLE), "[2, N, 77] with N >= 1"),
        (RULES, good_text(RULES)[:1], "[2, N, 77] with N >= 1"),
        (RULES, good_text(RULES)[:, :0], "[2, N, 77] with N >= 1"),
        (RULES, good_text(RULES)[..., :-1], "[2, N, 77] with N >= 1"),
        (SAMPLE, good_text(RULES), "[N, 77] with N >= 1"),
        (SAMPLE, good_text(SAMPLE)[0], "[N, 77] with N >= 1"),
        (SAMPLE, good_text(SAMPLE)[:0], "[N, 77] with N >= 1"),
        (SAMPLE, good_text(SAMPLE)[:, :50], "[N, 77] with N >= 1"),
    ],
    ids=lambda value: value.name if isinstance(value, Contract) else "",
)
def test_a_wrong_text_shape_names_both_shapes(contract: Contract, array: np.ndarray, expected: str) -> None:
    error = break_text(contract, array)
    assert (error.field, error.expected, error.got) == ("text.shape", expected, str(list(array.shape)))


@BOTH
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_wrong_text_dtype_names_both_types(contract: Contract, dtype: str) -> None:
    error = break_text(contract, good_text(contract).astype(dtype))
    assert (error.field, error.expected, error.got) == ("text.dtype", "int32", dtype)


def with_ids(contract: Contract, place: Any, value: int) -> np.ndarray:
    array = good_text(contract)
    (array[0] if contract.text.has_mask else array)[place] = value
    return array


@BOTH
@pytest.mark.parametrize(("value", "got"), [(-1, "-1 to 49407"), (49408, "269 to 49408")])
def test_ids_outside_the_vocabulary_show_the_range(contract: Contract, value: int, got: str) -> None:
    error = break_text(contract, with_ids(contract, (0, 2), value))
    assert (error.field, error.expected, error.got) == ("text.input_ids", "values from 0 to 49407", got)


@BOTH
def test_a_row_without_the_start_id_shows_the_starts(contract: Contract) -> None:
    error = break_text(contract, with_ids(contract, (1, 0), 320))
    assert (error.field, error.expected) == ("text.input_ids", "every row to start with 49406")
    assert error.got == "[49406   320]"


@BOTH
def test_a_row_without_the_end_of_text_id_is_refused(contract: Contract) -> None:
    error = break_text(contract, with_ids(contract, (1, slice(4, None)), 320))
    assert (error.field, error.got) == ("text.input_ids", "none")
    assert "end-of-text id 49407 in every row" in error.expected


@BOTH
@pytest.mark.parametrize("place", [(1, slice(5, None)), (0, 76)], ids=["all pads", "the last"])
def test_another_pad_id_is_refused_and_told_where_it_belongs(contract: Contract, place: Any) -> None:
    error = break_text(contract, with_ids(contract, place, 0))
    assert error.field == "text.input_ids"
    assert "only 49407 after the first end-of-text id" in error.expected
    assert "put back in the graph" in str(error)


@pytest.mark.parametrize(
    ("place", "value"),
    [((1, 0, 4), 0), ((1, 0, 5), 1), ((1, 1, 0), 0), ((1, 1, 3), 2), ((1,), 1), ((1,), 0)],
    ids=str,
)
def test_a_wrong_mask_is_refused(place: Any, value: int) -> None:
    array = good_text(RULES)
    array[place] = value
    error = break_text(RULES, array)
    assert error.field == "text.attention_mask"
    assert "1 up to and including the first end-of-text id, 0 after" in error.expected


@BOTH
def test_prepared_texts_keep_the_contract(contract: Contract) -> None:
    one = contract.prepare_text("a dog.")
    many = contract.prepare_text(("a dog.", "", "cat " * 200))
    assert one.shape == contract.text.shape(1)
    assert many.shape == contract.text.shape(3)
    assert one.dtype == many.dtype == np.int32
    contract.check_text(one)
    contract.check_text(many)
    np.testing.assert_array_equal(contract.prepare_text(["a dog."]), one)


def test_the_mask_plane_follows_the_ids() -> None:
    ids, mask = RULES.prepare_text(["woman body surfing."])
    np.testing.assert_array_equal(ids, SAMPLE.prepare_text(["woman body surfing."]))
    assert mask.sum() == 6


# --- embeddings


def test_good_embeddings_pass_and_so_do_half_precision_lengths() -> None:
    RULES.check_embedding(good_embedding())
    RULES.check_embedding(good_embedding(dim=512), 512)
    RULES.check_embedding(good_embedding(dim=512).astype(np.float16).astype(np.float32) * np.float32(1.005))


@pytest.mark.parametrize(
    ("array", "dim", "expected", "got"),
    [
        (good_embedding()[0], None, "[N, D]", "[8]"),
        (good_embedding()[None], None, "[N, D]", "[1, 3, 8]"),
        (good_embedding(), 16, "[N, 16]", "[3, 8]"),
    ],
    ids=["one axis", "three axes", "another dim"],
)
def test_a_wrong_embedding_shape_names_both_shapes(
    array: np.ndarray, dim: int | None, expected: str, got: str
) -> None:
    error = break_embedding(array, dim)
    assert (error.field, error.expected, error.got) == ("embedding.shape", expected, got)


def test_a_wrong_embedding_dtype_names_both_types() -> None:
    error = break_embedding(good_embedding().astype(np.float64))
    assert (error.field, error.expected, error.got) == ("embedding.dtype", "float32", "float64")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_counted(value: float) -> None:
    array = good_embedding()
    array[1, :3] = value
    error = break_embedding(array)
    assert error.field == "embedding.values"
    assert error.got.startswith("3 ")


@pytest.mark.parametrize(("factor", "shown"), [(1.02, "1.0200"), (0.0, "0.0000"), (30.0, "30.0000")])
def test_an_embedding_not_of_unit_length_names_the_worst_row(factor: float, shown: str) -> None:
    array = good_embedding()
    array[2] *= factor
    error = break_embedding(array)
    assert (error.field, error.got) == ("embedding.length", f"{shown} in row 2")
    assert "1 in every row" in error.expected


def test_the_tolerance_of_unit_length_is_the_contract_s_own() -> None:
    array = good_embedding() * np.float32(1.005)
    RULES.check_embedding(array)
    strict = RULES.model_copy(update={"embedding": Embedding(unit_length_tolerance=1e-3)})
    with pytest.raises(ContractError, match=r"embedding\.length"):
        strict.check_embedding(array)


# --- imports


def test_importing_the_contract_imports_no_heavy_library() -> None:
    code = (
        "import sys, lpcvc_zoo.contract\n"
        "heavy = {'torch', 'torchvision', 'timm', 'open_clip', 'transformers', 'onnx', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert contract_module.TOWERS == ("image", "text")
