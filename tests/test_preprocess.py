"""Host-side preparation of images against torchvision and PIL, to the byte; texts are in test_tokenize.py."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from torchvision.transforms import Resize
from torchvision.transforms import functional as tv

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.data import sample_photos
from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.preprocess import fit_and_pad, load_rgb, squash

RULES, SAMPLE = get_contract("lpcvc2026"), get_contract("lpcvc2026_sample")

# (width, height). The shorter edge alone decides up to 1:1.024; beyond it the longer edge is held at 1024.
SIZES = [
    (1000, 1000), (1024, 1000), (1000, 1024), (999, 1024), (1024, 999), (1001, 1025), (1025, 1000),
    (1024, 1024), (500, 512), (513, 500), (125, 128), (2000, 2048), (2049, 2000), (64, 65),
    (3000, 200), (200, 3000), (1280, 960), (641, 427), (333, 500), (7, 5), (1, 1), (2, 1),
    (1, 800), (800, 1), (1, 1024), (1024, 1), (2, 2048),
]  # fmt: skip
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "F"]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An image of that mode whose every sample is random, alpha and palette included."""
    rng = np.random.default_rng([width, height])
    if mode == "1":
        return Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).convert("1")
    if mode == "F":
        return Image.fromarray(rng.uniform(-50, 300, (height, width)).astype(np.float32))
    channels = len(Image.new(mode, (1, 1)).tobytes())
    image = Image.frombytes(mode, (width, height), rng.bytes(width * height * channels))
    if mode in ("P", "PA"):
        image.putpalette(rng.bytes(3 * 256))
    return image


def torchvision_recipe(image: Image.Image, shorter_edge: int = 1000, canvas: int = 1024) -> np.ndarray:
    """The rules document's image preparation, by torchvision itself."""
    resized = Resize(shorter_edge, max_size=canvas)(image.convert("RGB"))
    return np.asarray(tv.pad(resized, [0, 0, canvas - resized.width, canvas - resized.height]))


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def saved(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- fitting


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fit_and_pad_equals_torchvision_to_the_byte(size: tuple[int, int]) -> None:
    image = noise(*size)
    ours = fit_and_pad(image, 1000, 1024)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, torchvision_recipe(image))


EDGES = st.integers(1, 90).flatmap(lambda edge: st.tuples(st.just(edge), st.integers(edge + 1, 100)))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), EDGES)
def test_fit_and_pad_equals_torchvision_for_other_canvases(
    width: int, height: int, edges: tuple[int, int]
) -> None:
    image = noise(width, height)
    try:
        expected = torchvision_recipe(image, *edges)
    except ValueError:  # no pixel left: PIL refuses the size that torchvision asks for
        with pytest.raises(ContractError, match="aspect ratio"):
            fit_and_pad(image, *edges)
    else:
        np.testing.assert_array_equal(fit_and_pad(image, *edges), expected)


def test_fitted_content_lies_at_the_top_left_and_the_rest_is_zero() -> None:
    pixels = fit_and_pad(Image.new("RGB", (640, 480), "white"), 1000, 1024)
    assert (pixels[:768] == 255).all()
    assert not pixels[768:].any()


@pytest.mark.parametrize("size", [(1, 1025), (1025, 1), (2, 2051)], ids=str)
def test_an_image_that_would_shrink_to_nothing_names_the_aspect_ratio_limit(size: tuple[int, int]) -> None:
    with pytest.raises(ContractError, match="at most 1024:1") as caught:
        RULES.prepare_image(Image.new("RGB", size))
    assert caught.value.field == "image.size"
    assert f"{size[0]}x{size[1]}" in caught.value.got
    SAMPLE.prepare_image(Image.new("RGB", size))  # a squash leaves pixels


@pytest.mark.parametrize("size", [(300, 200), (224, 224), (1, 900), (5, 3)], ids=str)
def test_squash_equals_pil_resize_to_the_byte(size: tuple[int, int]) -> None:
    image = noise(*size)
    expected = np.asarray(image.resize((32, 48), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(squash(image, width=32, height=48), expected)


# --- through the contracts


@pytest.mark.parametrize("mode", MODES)
def test_rules_image_equals_the_torchvision_recipe_in_every_mode(mode: str) -> None:
    image = noise(90, 60, mode)
    array = RULES.prepare_image(image)
    RULES.check_image(array)
    np.testing.assert_array_equal(array[0].transpose(1, 2, 0), torchvision_recipe(image).astype(np.float32))


def test_rules_image_of_a_photo_equals_the_torchvision_recipe() -> None:
    path = sample_photos(3)[1]
    expected = torchvision_recipe(Image.open(path)).astype(np.float32)
    for source in (path, str(path), Image.open(path)):
        array = RULES.prepare_image(source)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array[0].transpose(1, 2, 0), expected)


def test_sample_image_equals_the_published_solution_bit_for_bit() -> None:
    path = sample_photos(3)[2]
    resized = Image.open(path).convert("RGB").resize((224, 224))
    expected = (np.asarray(resized, np.float32) / 255.0).transpose(2, 0, 1)[None]
    array = SAMPLE.prepare_image(path)
    SAMPLE.check_image(array)
    assert array.dtype == expected.dtype == np.float32
    assert array.tobytes() == expected.tobytes()


def test_scaling_is_exact_for_every_byte() -> None:
    every = Image.fromarray(np.arange(224 * 224 * 3).astype(np.uint8).reshape(224, 224, 3))
    raw = np.asarray(every)
    unit = SAMPLE.prepare_image(every)[0].transpose(1, 2, 0)
    assert unit.tobytes() == (raw.astype(np.float32) / np.float32(255)).tobytes()
    assert unit.tobytes() == (raw / 255.0).astype(np.float32).tobytes()  # divided in float64, then rounded
    whole = Image.new("RGB", (1000, 1000))
    whole.paste(every)
    np.testing.assert_array_equal(
        RULES.prepare_image(whole)[0, :, :1000, :1000].transpose(1, 2, 0),
        np.asarray(whole).astype(np.float32),
    )


# --- reading


@pytest.mark.parametrize("mode", MODES)
def test_load_rgb_converts_as_pil_does_and_leaves_the_image_alone(mode: str) -> None:
    image = noise(9, 7, mode)
    before = (image.mode, image.size, image.tobytes())
    rgb = load_rgb(image)
    assert rgb.mode == "RGB"
    assert rgb.tobytes() == image.convert("RGB").tobytes()
    assert (image.mode, image.size, image.tobytes()) == before


def test_alpha_is_dropped_not_blended() -> None:
    assert load_rgb(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).getpixel((0, 0)) == (10, 20, 30)


def test_a_transparent_palette_gives_its_colours() -> None:
    image = noise(8, 8, "P")
    data = encoded(image, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow advises RGBA here
        assert load_rgb(Image.open(io.BytesIO(data))).tobytes() == image.convert("RGB").tobytes()


RAMP = np.linspace(0, 65_535, 24 * 32).astype(np.uint16).reshape(24, 32)


@pytest.mark.parametrize(
    ("mode", "dtype"), [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2"), ("I", "=i4")]
)
def test_16_bit_grey_keeps_its_upper_byte(mode: str, dtype: str) -> None:
    image = Image.frombytes(mode, (32, 24), RAMP.astype(dtype).tobytes())
    pixels = np.asarray(load_rgb(image))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], RAMP // 256)


def test_32_bit_grey_outside_16_bits_is_clipped() -> None:
    image = Image.fromarray(np.array([[-5, 255, 256, 65_535, 70_000, 2**31 - 1]], np.int32))
    assert np.asarray(load_rgb(image))[0, :, 0].tolist() == [0, 0, 1, 255, 255, 255]


def test_16_bit_files_keep_their_upper_byte(tmp_path: Path) -> None:
    little, big = (Image.frombytes(mode, (32, 24), RAMP.astype(dtype).tobytes())
                   for mode, dtype in [("I;16", "<u2"), ("I;16B", ">u2")])  # fmt: skip
    files = {
        "grey.png": encoded(little, "PNG"),
        "little.tif": encoded(little, "TIFF"),
        "big.tif": encoded(big, "TIFF"),
        "grey.pgm": b"P5 32 24 65535\n" + RAMP.astype(">u2").tobytes(),
    }
    for name, data in files.items():
        pixels = np.asarray(load_rgb(saved(tmp_path, name, data)))
        np.testing.assert_array_equal(pixels, np.repeat((RAMP // 256)[..., None], 3, axis=2), err_msg=name)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_not_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = encoded(noise(60, 40), "JPEG")
    turned = encoded(noise(60, 40), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == orientation
    path = saved(tmp_path, "turned.jpg", turned)
    assert load_rgb(path).size == (60, 40)
    expected = torchvision_recipe(Image.open(io.BytesIO(plain))).astype(np.float32)
    np.testing.assert_array_equal(RULES.prepare_image(path)[0].transpose(1, 2, 0), expected)


def test_an_animated_file_gives_its_first_frame_and_an_opened_one_its_current(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = saved(
        tmp_path, "a.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    )
    assert load_rgb(path).getpixel((0, 0)) == (255, 0, 0)
    with Image.open(path) as opened:
        assert len(list(ImageSequence.Iterator(opened))) == 3
        opened.seek(1)
        assert load_rgb(opened).getpixel((0, 0)) == (0, 255, 0)
        assert opened.tell() == 1


def unreadable(folder: Path) -> dict[str, Path]:
    png = encoded(noise(40, 30), "PNG")
    bad_crc = bytearray(png)
    bad_crc[40] ^= 0xFF
    return {
        "missing": folder / "nowhere.jpg",
        "folder": folder,
        "empty": saved(folder, "empty.jpg", b""),
        "text": saved(folder, "text.jpg", b"this is not a picture\n" * 50),
        "corrupt": saved(folder, "corrupt.png", bytes(bad_crc)),
        "nul": Path("nul\0byte.png"),
    }


@pytest.mark.parametrize("case", ["missing", "folder", "empty", "text", "corrupt", "nul"])
def test_an_unreadable_file_is_a_contract_error_that_names_it(tmp_path: Path, case: str) -> None:
    path = unreadable(tmp_path)[case]
    with pytest.raises(ContractError) as caught:
        RULES.prepare_image(path)
    assert caught.value.field == "image.file"
    assert repr(str(path)) in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("kept", [0.3, 0.95])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "DDS"])
def test_a_truncated_file_is_a_contract_error(tmp_path: Path, file_format: str, kept: float) -> None:
    data = encoded(noise(64, 48), file_format)
    whole = saved(tmp_path, "whole", data)
    assert load_rgb(whole).size == (64, 48)
    cut = saved(tmp_path, "cut", data[: int(len(data) * kept)])
    with pytest.raises(ContractError, match="whole image") as caught:
        load_rgb(cut)
    assert caught.value.field == "image.file"


def test_a_truncated_image_that_the_caller_opened_is_a_contract_error() -> None:
    data = encoded(noise(64, 48), "PNG")
    opened = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ContractError, match=r"PIL image in mode RGB.*truncated"):
        load_rgb(opened)


def test_a_decompression_bomb_is_a_contract_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "large.png", encoded(noise(40, 30), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ContractError, match="DecompressionBombError") as caught:
        load_rgb(path)
    assert caught.value.field == "image.file"


def test_a_mode_that_pillow_cannot_convert_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="mode La"):
        load_rgb(Image.new("La", (2, 2)))


def test_an_image_without_pixels_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="at least one pixel, got 0x5") as caught:
        RULES.prepare_image(Image.new("RGB", (0, 5)))
    assert caught.value.field == "image.size"


@pytest.mark.parametrize(
    "thing", [None, 3, b"bytes", np.zeros((4, 4, 3), np.uint8)], ids=lambda x: type(x).__name__
)
def test_what_is_neither_image_nor_path_is_a_contract_error(thing: Any) -> None:
    with pytest.raises(ContractError, match=type(thing).__name__) as caught:
        load_rgb(thing)
    assert caught.value.field == "image"


# --- imports


def test_preparing_needs_no_network_no_torch_and_no_open_clip() -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network used")
socket.socket.connect = socket.getaddrinfo = refuse
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.data import sample_photos
contract = get_contract("lpcvc2026")
assert not {"torch", "transformers", "open_clip"} & set(sys.modules), "contract imports too much"
contract.check_text(contract.prepare_text("a dog."))
contract.check_image(contract.prepare_image(sample_photos(1)[0]))
assert not {"torch", "torchvision", "open_clip"} & set(sys.modules), "preparing imports too much"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
