"""The graph's own preprocessing against PIL and the tokenizer, which do the same on a host."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.data import sample_photos
from lpcvc_zoo.entry import Preprocessing, TextSpec
from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.exporting.onnx import export_module
from lpcvc_zoo.ingraph import ContentResize, ImageAdapter, TextAdapter, resizer
from lpcvc_zoo.preprocess import tokenize

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
RULES, SAMPLE = get_contract("lpcvc2026"), get_contract("lpcvc2026_sample")
# Pillow rounds to whole grey levels after each pass: 0.27 on average. Where its passes run in the other
# order than ours (Pillow 13, tall images), single pixels beside hard edges differ by up to 4.
MEAN_LEVELS, MOST_LEVELS = 0.5, 4.5
# (width, height) as the rules' fit leaves them: one edge is 1024, or the shorter one is 1000
SIZES = [
    (1024, 1024),
    (1000, 1000),
    (1000, 1024),
    (1011, 1000),
    (1024, 683),
    (683, 1024),
    (1024, 41),
    (3, 1024),
]


def photo(index: int = 0) -> Image.Image:
    return Image.open(sample_photos(7)[index]).convert("RGB")


def canvas_of(content: Image.Image) -> torch.Tensor:
    canvas = np.zeros((1024, 1024, 3), np.float32)
    pixels = np.asarray(content)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(canvas).permute(2, 0, 1)[None]


def difference(ours: torch.Tensor, pil: Image.Image) -> np.ndarray:
    return np.abs(ours[0].permute(1, 2, 0).numpy() - np.asarray(pil).astype(np.float32))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("width_height", SIZES, ids=str)
def test_content_resize_equals_pil_on_the_content_alone(
    width_height: tuple[int, int], interpolation: str
) -> None:
    content = photo(3).resize(width_height, Image.Resampling.BICUBIC)
    resize = ContentResize(1024, 1000, 224, interpolation, 255.0)
    error = difference(resize(canvas_of(content)), content.resize((224, 224), FILTERS[interpolation]))
    assert error.mean() < MEAN_LEVELS
    assert error.max() < MOST_LEVELS


def test_content_resize_equals_pil_on_noise_at_another_size() -> None:
    noise = np.random.default_rng(0).integers(1, 256, (700, 1024, 3), dtype=np.uint8)
    content = Image.fromarray(noise)
    resize = ContentResize(1024, 1000, 256, "bicubic", 255.0)
    error = difference(resize(canvas_of(content)), content.resize((256, 256), FILTERS["bicubic"]))
    assert error.mean() < MEAN_LEVELS
    assert error.max() < MOST_LEVELS


def test_each_image_of_a_batch_is_resized_by_its_own_content() -> None:
    contents = [photo(i).resize(size) for i, size in enumerate([(1024, 500), (700, 1024)])]
    resize = ContentResize(1024, 1000, 224, "bicubic", 255.0)
    together = resize(torch.cat([canvas_of(content) for content in contents]))
    for index, content in enumerate(contents):
        torch.testing.assert_close(together[index], resize(canvas_of(content))[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("size", "black_edge"), [((1024, 600), "right"), ((600, 1024), "bottom")])
def test_a_black_end_of_the_longer_edge_is_not_taken_for_padding(
    size: tuple[int, int], black_edge: str
) -> None:
    pixels = np.asarray(photo(2).resize(size)).copy()
    pixels[(slice(None), slice(900, None)) if black_edge == "right" else slice(900, None)] = 0
    content = Image.fromarray(pixels)
    resize = ContentResize(1024, 1000, 224, "bicubic", 255.0)
    error = difference(resize(canvas_of(content)), content.resize((224, 224), FILTERS["bicubic"]))
    assert error.max() < MOST_LEVELS


def test_one_faint_pixel_is_enough_to_count_as_content() -> None:
    pixels = np.zeros((1024, 640, 3), np.uint8)
    pixels[10, 639, 2] = 1
    pixels[1023, 5, 0] = 1
    resize = ContentResize(1024, 1000, 224, "bicubic", 255.0)
    image = canvas_of(Image.fromarray(pixels))
    height, width = resize.content_size(image)
    assert (height.item(), width.item()) == (1024, 640)


def test_an_image_that_is_all_black_stays_black() -> None:
    resize = ContentResize(1024, 1000, 224, "bicubic", 255.0)
    assert torch.equal(resize(torch.zeros(1, 3, 1024, 1024)), torch.zeros(1, 3, 224, 224))


def test_sample_contract_needs_no_resize_at_its_own_size_and_pils_resize_at_another() -> None:
    content = photo(1).resize((224, 224))
    image = torch.from_numpy(np.asarray(content).astype(np.float32) / 255).permute(2, 0, 1)[None]
    assert torch.equal(resizer(SAMPLE.image, 224, "bicubic")(image), image)
    for interpolation, pil_filter in FILTERS.items():
        ours = resizer(SAMPLE.image, 256, interpolation)(image) * 255
        assert difference(ours, content.resize((256, 256), pil_filter)).max() < 1.5


@pytest.mark.parametrize("contract", [RULES, SAMPLE], ids=lambda c: c.name)
def test_pixels_are_scaled_and_normalised_by_the_checkpoints_own_mean_and_std(contract) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    grey = torch.full((1, 3, contract.image.height, contract.image.width), 0.25 * contract.image.high)
    out = ImageAdapter(contract.image, preprocessing, 64)(grey)
    expected = torch.tensor([(0.25 - 0.5) / 0.1, (0.25 - 0.4) / 0.2, (0.25 - 0.3) / 0.3])
    torch.testing.assert_close(out, expected.view(1, 3, 1, 1).expand(1, 3, 64, 64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("contract", [RULES, SAMPLE], ids=lambda c: c.name)
def test_image_preprocessing_exports_without_operators_an_npu_dislikes(contract, tmp_path) -> None:
    adapter = ImageAdapter(contract.image, Preprocessing(), 256)
    example = contract.prepare_image(sample_photos(1)[0])
    proto = export_module(adapter, example, "image", "pixels", tmp_path / "p.onnx")
    onnx.checker.check_model(proto)
    operators = Counter(node.op_type for node in proto.graph.node)
    allowed = set(
        "Add Sub Mul Div Abs Floor Min Max Clip Cast MatMul Transpose Unsqueeze Squeeze Reshape ReduceMax "
        "ReduceSum".split()
    )
    assert set(operators) <= allowed


TEXTS = [
    "a red car.",
    "the woman on the left, wearing a hat and a very long yellow scarf that trails behind her.",
    "",
]


@pytest.mark.parametrize("contract", [RULES, SAMPLE], ids=lambda c: c.name)
@pytest.mark.parametrize("length", [77, 32, 8, 3])
@pytest.mark.parametrize("pad_id", [0, 49407])
def test_text_is_cut_as_the_tokenizer_cuts_and_padded_the_towers_way(
    contract, length: int, pad_id: int
) -> None:
    adapter = TextAdapter(contract.text, TextSpec(pad_id=pad_id), length)
    ids = adapter(torch.from_numpy(contract.prepare_text(TEXTS)))
    expected, mask = tokenize(TEXTS, length)
    expected = np.where(mask == 1, expected, pad_id)
    assert ids.dtype == torch.int32
    np.testing.assert_array_equal(ids.numpy(), expected)


@pytest.mark.parametrize("length", [2, 78])
def test_text_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ContractError, match="3 to 77 tokens"):
        TextAdapter(RULES.text, TextSpec(), length)


def test_text_length_is_bounded_by_the_towers_context() -> None:
    with pytest.raises(ContractError, match="3 to 32 tokens"):
        TextAdapter(RULES.text, TextSpec(context_length=32), 77)
