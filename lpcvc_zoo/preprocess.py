"""Host-side preparation of images and texts: pure functions, told everything by the contract.

Image files become RGB pixels, texts become ids of CLIP's byte-pair vocabulary. Nothing here knows which
contract is asking, and nothing here imports torch.
"""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lpcvc_zoo.errors import ContractError, ZooError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_408 - 2 * 256 - 2  # the ids there are, less two symbols for every byte and two special tokens


def load_rgb(image: Image.Image | str | Path) -> Image.Image:
    """An image file, or an image already opened, in mode RGB as ``PIL.Image.convert("RGB")`` gives it.

    Alpha is dropped, CMYK converted, a palette looked up, EXIF orientation not applied. Of an animated
    file the first frame is taken, of an opened image the frame it stands at. The one departure from
    ``convert``: 16-bit greyscale (``I;16`` in any byte order, and ``I``, as which Pillow opens 16-bit
    PGM) keeps its upper byte, where ``convert`` would turn everything above 255 white.

    Raises ContractError for missing files, for files that are not images, are truncated or corrupt, for
    decompression bombs (by Pillow's own limit), for modes that Pillow can't convert and for images
    without a pixel.
    """
    if not isinstance(image, Image.Image | str | Path):
        raise ContractError("image", "a PIL image or the path of an image file", type(image).__name__)
    try:
        if isinstance(image, Image.Image):
            rgb = _to_rgb(image)
        else:
            with Image.open(image) as opened:
                rgb = _to_rgb(opened)
    # Broken files make Pillow's plugins raise OSError, SyntaxError, ValueError, RuntimeError and others.
    except Exception as error:
        where = f"a PIL image in mode {image.mode}" if isinstance(image, Image.Image) else repr(str(image))
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise ContractError(
            "image.file", "a whole image that Pillow can read", f"{where} ({reason})"
        ) from error
    if 0 in rgb.size:
        raise ContractError("image.size", "at least one pixel", f"{rgb.width}x{rgb.height} pixels")
    return rgb


def fit_and_pad(image: Image.Image, shorter_edge: int, canvas: int) -> NDArray[np.uint8]:
    """An RGB image fitted into uint8 ``[canvas, canvas, 3]``, values 0..255, zero at the bottom and right.

    The shorter edge goes to ``shorter_edge`` pixels, or, where the longer one would then pass ``canvas``,
    the longer goes to ``canvas``; bilinear. To the byte what ``torchvision.transforms.Resize(shorter_edge,
    max_size=canvas)`` makes of the PIL image, placed at the top left of a black canvas. ``shorter_edge``
    must be below ``canvas``. Raises ContractError for an image so thin that no pixel would be left.
    """
    width, height = _fitted_size(image.width, image.height, shorter_edge, canvas)
    if 0 in (width, height):
        raise ContractError(
            "image.size",
            f"an aspect ratio of at most {canvas}:1",
            f"{image.width}x{image.height} pixels, whose shorter edge would shrink to nothing",
            "Crop it, or leave it out.",
        )
    padded = np.zeros((canvas, canvas, 3), np.uint8)
    padded[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return padded


def squash(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """An RGB image as uint8 ``[height, width, 3]``, values 0..255: PIL's ``resize`` with its default filter.

    Both edges are resized independently (the aspect ratio is not kept); the default filter is bicubic.
    """
    return np.array(image.resize((width, height)))


def tokenize(texts: Sequence[str], length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and attention mask, both int32 ``[N, length]``, of ``openai/clip-vit-base-patch32``'s tokenizer.

    Row: start id 49406, tokens, end-of-text id 49407, then 49407 up to ``length`` (at least 2); a text
    that is too long loses its last tokens, never the end-of-text id. The mask is 1 up to and including
    the first end-of-text id. Text is put into NFC, its whitespace collapsed, and lower-cased, as Hugging
    Face's tokenizer does it: unlike open_clip's, it neither unescapes HTML nor repairs broken Unicode.

    Works offline: the vocabulary is the one that open_clip_torch ships. Raises ContractError for no text
    at all, for items that are not text, and for texts that spell out a special token.
    """
    if not texts:
        raise ContractError("text", "at least one text", "none", "An empty string would do.")
    for index, text in enumerate(texts):
        _check_text(index, text)
    tokenizer = clip_tokenizer()
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length)
    ids = np.array(encoded["input_ids"], np.int32)
    mask = np.array(encoded["attention_mask"], np.int32)
    # A special token spelt out in a text becomes the real one, and would end the text early.
    ends = ids == tokenizer.eos_token_id
    bad = (ends.argmax(axis=1) + 1 != mask.sum(axis=1)) | (ids[:, 1:] == tokenizer.bos_token_id).any(axis=1)
    if bad.any():
        index = int(bad.argmax())
        raise ContractError(
            "text",
            f"no {tokenizer.bos_token} and no {tokenizer.eos_token} inside a text",
            f"{texts[index]!r} at index {index}",
            "The tokenizer adds both itself.",
        )
    return ids, mask


@cache
def clip_tokenizer() -> Any:
    """transformers' ``CLIPTokenizer`` over CLIP's byte-pair vocabulary; about a second the first time."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    vocabulary, merges = _vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        upper = np.asarray(image).clip(0, 65_535) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    return image.convert("RGB")


def _fitted_size(width: int, height: int, shorter_edge: int, canvas: int) -> tuple[int, int]:
    """Width and height after ``Resize(shorter_edge, max_size=canvas)``: fractions of a pixel are cut off."""
    short, long = sorted((width, height))
    new_short, new_long = shorter_edge, int(shorter_edge * long / short)
    if new_long > canvas:
        # From the size just cut off, not from the image's own: this is what torchvision does.
        new_short, new_long = int(canvas * new_short / new_long), canvas
    return (new_short, new_long) if width <= height else (new_long, new_short)


def _check_text(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise ContractError("text", "only strings", f"{type(text).__name__} at index {index}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ContractError("text", "valid Unicode", f"a lone surrogate at index {index}") from error


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's tokens with their ids, and its merges in order of priority.

    An id is a place in this order: a symbol for every byte (printable ones first), the same symbols at
    the end of a word, one token for every merge, the start and the end-of-text token.
    """
    package = importlib.util.find_spec("open_clip")  # does not import it: that would take seconds
    if package is None or package.origin is None:
        raise ZooError(
            "open_clip_torch holds CLIP's vocabulary and is not installed. Run: pip install open_clip_torch"
        )
    with gzip.open(Path(package.origin).with_name(VOCABULARY_FILE), "rt", encoding="utf-8") as file:
        next(file)  # the first line is a version, not a merge
        lines = [next(file) for _ in range(MERGES)]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    printable = [chr(byte) for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
    symbols = printable + [chr(256 + place) for place in range(256 - len(printable))]
    tokens = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *(left + right for left, right in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return {token: place for place, token in enumerate(tokens)}, merges
