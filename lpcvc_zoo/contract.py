"""What crosses the boundary between a host and the two towers: names, shapes, types, units, metric.

A contract is all that a host needs to prepare inputs and read outputs, and all that a model needs to
know about its host. The two named contracts are the two forms in which LPCVC 2026 Track 1 states its
input: the rules document (``lpcvc2026``) and the published sample solution (``lpcvc2026_sample``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lpcvc_zoo import preprocess
from lpcvc_zoo.errors import ContractError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]


Tower = Literal["image", "text"]
TOWERS: tuple[Tower, Tower] = ("image", "text")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageInput(_Part):
    """One RGB image as float32 ``[N, 3, height, width]`` with values in ``[0, high]``, not normalised.

    ``fit="pad"``: resized so that the shorter edge is ``shorter_edge`` unless the longer edge would pass
    ``width`` (= ``height``), then zero-padded at the bottom and right. ``fit="squash"``: both edges resized
    independently to ``height`` and ``width``.
    """

    name: str = "image"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Literal["float32"] = "float32"
    layout: Literal["NCHW"] = "NCHW"
    channels: Literal["RGB"] = "RGB"
    high: float = Field(gt=0)
    fit: Literal["pad", "squash"]
    shorter_edge: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fit_is_complete(self) -> ImageInput:
        if self.fit == "pad" and not (self.shorter_edge and self.shorter_edge < self.width == self.height):
            raise ValueError('fit="pad" needs a square canvas and a shorter_edge below its width')
        if self.fit == "squash" and self.shorter_edge is not None:
            raise ValueError('fit="squash" takes no shorter_edge')
        return self

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, 3, self.height, self.width)


class TextInput(_Part):
    """Token ids of CLIP's tokenizer, ``[N, length]``, or ids and mask stacked to ``[2, N, length]``.

    Row: start id, tokens, end-of-text id, then ``pad_id`` up to ``length``; a text that is too long is
    cut so that the end-of-text id stays. The mask is 1 up to and including the first end-of-text id.
    """

    name: str = "text"
    length: int = Field(ge=2)
    dtype: Literal["int32"] = "int32"
    planes: tuple[Literal["input_ids"], Literal["attention_mask"]] | tuple[Literal["input_ids"]]
    tokenizer: str = "openai/clip-vit-base-patch32"
    vocab_size: int = 49408
    sot_id: int = 49406
    eot_id: int = 49407
    pad_id: int = 49407

    @property
    def has_mask(self) -> bool:
        return len(self.planes) == 2

    def shape(self, batch: int) -> tuple[int, ...]:
        return (2, batch, self.length) if self.has_mask else (batch, self.length)


class Embedding(_Part):
    """What a tower returns: float32 ``[N, D]``, finite, of unit length. D is the model's own."""

    image_name: str = "image_embedding"
    text_name: str = "text_embedding"
    dtype: Literal["float32"] = "float32"
    unit_length_tolerance: float = 1e-2  # roomy enough for fp16 and 16-bit quantised outputs


class Metric(_Part):
    """The score: recall@k over all texts of the pool, ``fraction`` of the ground truth or ``any`` hit."""

    k: int = Field(default=10, ge=1)
    mode: Literal["fraction", "any"] = "fraction"

    @property
    def label(self) -> str:
        return f"recall@{self.k} ({'fractional' if self.mode == 'fraction' else 'any-hit'})"


class Contract(_Part):
    """Everything a host and a model must agree on, under one name.

    ``latency_budget_ms`` is for one image plus one text, as profiled on ``device``; ``source`` says
    which document the contract follows.
    """

    name: str
    image: ImageInput
    text: TextInput
    embedding: Embedding = Embedding()
    metric: Metric = Metric()
    latency_budget_ms: float | None = None
    device: str
    source: str

    def prepare_image(self, image: Image.Image | str | Path) -> Array:
        """One image file or PIL image as this contract's float32 ``[1, 3, H, W]``.

        Modes other than RGB are converted as ``PIL.Image.convert("RGB")`` does (alpha dropped, CMYK
        converted); 16-bit greyscale keeps its upper byte. EXIF orientation is *not* applied: the rules'
        recipe does not apply it. Raises ContractError for files that are not images, truncated files and
        images so thin that the recipe would leave no pixel.
        """
        rgb = preprocess.load_rgb(image)
        if self.image.fit == "pad":
            assert self.image.shorter_edge is not None
            pixels = preprocess.fit_and_pad(rgb, self.image.shorter_edge, self.image.width)
        else:
            pixels = preprocess.squash(rgb, self.image.width, self.image.height)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])  # as bytes: that is four times less
        return planes.astype(np.float32) * np.float32(self.image.high) / np.float32(255)

    def prepare_text(self, text: str | Sequence[str]) -> Array:
        """Texts as this contract's int32 array: ``[2, N, length]`` with a mask, else ``[N, length]``.

        The text is tokenised the way the Hugging Face tokenizer does, which neither repairs broken
        Unicode (ftfy) nor unescapes HTML as open_clip's does, because the evaluation server uses it.
        Nothing is added to the text: if the rules want a final ".", the caller's text has it.
        """
        texts = [text] if isinstance(text, str) else list(text)
        ids, mask = preprocess.tokenize(texts, self.text.length)
        return np.stack([ids, mask]) if self.text.has_mask else ids

    def check_image(self, array: Array) -> None:
        """Raise ContractError unless ``array`` is a batch of this contract's images."""
        spec = self.image
        _check_array("image", array, spec.dtype, spec.shape(1), batch_axis=0)
        _check_finite("image.values", array)
        _check_range("image.values", array, 0.0, spec.high, "Give raw RGB, without mean and std.")

    def check_text(self, array: Array) -> None:
        """Raise ContractError unless ``array`` is a batch of this contract's texts."""
        spec = self.text
        _check_array("text", array, spec.dtype, spec.shape(1), batch_axis=1 if spec.has_mask else 0)
        ids = array[0] if spec.has_mask else array
        _check_range("text.input_ids", ids, 0, spec.vocab_size - 1)
        if not (ids[:, 0] == spec.sot_id).all():
            raise ContractError("text.input_ids", f"every row to start with {spec.sot_id}", str(ids[:, 0]))
        is_eot = ids == spec.eot_id
        if not is_eot.any(axis=1).all():
            raise ContractError("text.input_ids", f"an end-of-text id {spec.eot_id} in every row", "none")
        after_eot = (np.cumsum(is_eot, axis=1) - is_eot) > 0
        if not (ids[after_eot] == spec.pad_id).all():
            raise ContractError(
                "text.input_ids", f"only {spec.pad_id} after the first end-of-text id", "other ids",
                "Pad as the contract's tokenizer does; a tower's own pad id is put back in the graph.",
            )  # fmt: skip
        if spec.has_mask and not (array[1] == ~after_eot).all():
            raise ContractError(
                "text.attention_mask",
                "1 up to and including the first end-of-text id, 0 after",
                "another mask",
            )

    def check_embedding(self, array: Array, dim: int | None = None) -> None:
        """Raise ContractError unless ``array`` is a batch of finite unit-length embeddings ``[N, dim]``."""
        if not isinstance(array, np.ndarray):
            raise ContractError("embedding", "a numpy array", type(array).__name__)
        if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
            raise ContractError("embedding.shape", f"[N, {dim or 'D'}]", str(list(array.shape)))
        if array.dtype != np.dtype(self.embedding.dtype):
            raise ContractError("embedding.dtype", self.embedding.dtype, str(array.dtype))
        _check_finite("embedding.values", array)
        error = np.abs(np.linalg.norm(array.astype(np.float64), axis=1) - 1)
        if error.size and error.max() > self.embedding.unit_length_tolerance:
            worst = int(error.argmax())
            length = float(np.linalg.norm(array[worst]))
            raise ContractError("embedding.length", "1 in every row", f"{length:.4f} in row {worst}")


def _check_array(field: str, array: Array, dtype: str, shape: tuple[int, ...], batch_axis: int) -> None:
    if not isinstance(array, np.ndarray):
        raise ContractError(field, "a numpy array", type(array).__name__)
    shown = [str(size) for size in shape]
    shown[batch_axis] = "N"
    expected = f"[{', '.join(shown)}]"
    matches = array.ndim == len(shape) and all(
        have == want
        for axis, (have, want) in enumerate(zip(array.shape, shape, strict=True))
        if axis != batch_axis
    )
    if not matches or array.shape[batch_axis] == 0:
        raise ContractError(f"{field}.shape", f"{expected} with N >= 1", str(list(array.shape)))
    if array.dtype != np.dtype(dtype):
        raise ContractError(f"{field}.dtype", dtype, str(array.dtype))


def _check_finite(field: str, array: Array) -> None:
    bad = int(np.size(array) - np.isfinite(array).sum())
    if bad:
        raise ContractError(field, "finite numbers", f"{bad} NaN or infinite values")


def _check_range(field: str, array: Array, low: float, high: float, hint: str = "") -> None:
    least, most = array.min(), array.max()
    if least < low or most > high:
        raise ContractError(field, f"values from {low:g} to {high:g}", f"{least!s} to {most!s}", hint)


ORGANISERS = "lowpowervision@gmail.com"  # with whom the rules want compile jobs shared

CONTRACTS: dict[str, Contract] = {
    contract.name: contract
    for contract in (
        Contract(
            name="lpcvc2026",
            image=ImageInput(height=1024, width=1024, high=255.0, fit="pad", shorter_edge=1000),
            text=TextInput(length=77, planes=("input_ids", "attention_mask")),
            latency_budget_ms=35.0,
            device="XR2 Gen 2 (Proxy)",
            source="LPCVC 2026 Track 1 rules document",
        ),
        Contract(
            name="lpcvc2026_sample",
            image=ImageInput(height=224, width=224, high=1.0, fit="squash"),
            text=TextInput(length=77, planes=("input_ids",)),
            latency_budget_ms=35.0,
            device="XR2 Gen 2 (Proxy)",
            source="LPCVC 2026 Track 1 published sample solution",
        ),
    )
}


def get_contract(name: str) -> Contract:
    """The contract of that name; UnknownNameError suggests the nearest."""
    if name not in CONTRACTS:
        raise UnknownNameError("contract", name, CONTRACTS)
    return CONTRACTS[name]
