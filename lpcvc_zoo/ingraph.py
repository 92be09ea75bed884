"""The host's form turned into the tower's own, inside the graph: resize, scale, mean/std, pad ids.

Everything here has static shapes and exports to plain arithmetic and MatMul: no Resize, GridSample,
ArgMax, Gather, Where or If, none of which a phone's NPU runs well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lpcvc_zoo.errors import ContractError

if TYPE_CHECKING:
    from lpcvc_zoo.contract import ImageInput, TextInput
    from lpcvc_zoo.entry import Preprocessing, TextSpec


class ImageAdapter(nn.Module):
    """Contract image ``[N, 3, H, W]`` in ``[0, high]`` -> normalised pixels ``[N, 3, size, size]``."""

    scale: Tensor
    shift: Tensor

    def __init__(self, image: ImageInput, preprocessing: Preprocessing, size: int) -> None:
        super().__init__()
        self.resize = resizer(image, size, preprocessing.interpolation)
        # (pixel / high - mean) / std as one multiply and one add
        std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (image.high * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        pixels: Tensor = self.resize(image)
        return pixels * self.scale + self.shift


def resizer(image: ImageInput, size: int, interpolation: str) -> nn.Module:
    """The module that brings a contract's image to ``size`` x ``size``, values staying in ``[0, high]``."""
    if image.fit == "pad":
        assert image.shorter_edge is not None
        return ContentResize(image.width, image.shorter_edge, size, interpolation, image.high)
    if (image.height, image.width) == (size, size):
        return nn.Identity()
    return FixedResize(image.height, image.width, size, interpolation, image.high)


class ContentResize(nn.Module):
    """The content of a zero-padded canvas, resized to ``size`` x ``size`` as PIL would resize it alone.

    The content sits at the top left; its true width and height are read off the padding, the weights of
    an antialiased resize are computed from them, and two matrix products apply them, with the clipping that
    PIL does after each pass. Width first, as Pillow does up to version 12; Pillow 13 takes the height
    first for tall images, which moves single pixels by up to 4 grey levels of 255.
    """

    index: Tensor
    targets: Tensor
    lines: Tensor
    pixels: Tensor

    def __init__(self, canvas: int, shorter_edge: int, size: int, interpolation: str, high: float) -> None:
        super().__init__()
        self.canvas, self.shorter_edge, self.size, self.high = canvas, shorter_edge, size, high
        self.kernel = _KERNELS[interpolation]
        self.register_buffer("index", torch.arange(canvas, dtype=torch.float32), persistent=False)
        rows = _TILE if size % _TILE == 0 else 1
        targets = 2 * torch.arange(size, dtype=torch.int32).view(rows, size // rows, 1) + 1
        self.register_buffer("targets", targets, persistent=False)
        lines = 3 * canvas  # of all three channels
        self.register_buffer("lines", torch.full((1, lines), 1 / lines), persistent=False)
        self.register_buffer("pixels", torch.full((canvas, 1), 1 / canvas), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.content_size(image)
        across, down = (self.weights(extent).unsqueeze(1) for extent in (width, height))
        rows = (image @ across.mT).clamp(0.0, self.high)
        return (down @ rows).clamp(0.0, self.high)

    def content_size(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width ``[N, 1]`` of the content: up to the last row and column that are not all 0.

        A black edge of the content looks like padding. But the contract's fit leaves the longer edge at
        the full canvas whenever the shorter one is below ``shorter_edge``: that puts the longer one right.
        """
        # A product with a constant vector is the cheapest reduction there is: 0.3 ms for the whole canvas
        # in ONNX Runtime, where ReduceMax takes 20. Pixels are never negative, so nothing cancels.
        width = self.extent(self.lines @ image.flatten(1, 2))
        rows = (image.flatten(1, 2) @ self.pixels).reshape(-1, 3, self.canvas)
        height = self.extent(rows.sum(dim=1, keepdim=True))
        below = (self.shorter_edge - torch.minimum(height, width)).clamp(0.0, 1.0)
        is_wide = (width - height + 1).clamp(0.0, 1.0)
        height = height + below * (1 - is_wide) * (self.canvas - height)
        width = width + below * is_wide * (self.canvas - width)
        return height, width

    def extent(self, mean: Tensor) -> Tensor:
        """1 + the last index at which ``mean`` ``[N, 1, canvas]`` is not 0, as ``[N, 1]``; 1 if all are."""
        lit = (mean.squeeze(1) * _LIT).clamp(0.0, 1.0)
        return (lit * (self.index + 1)).amax(dim=1, keepdim=True).clamp(min=1.0)

    def weights(self, extent: Tensor) -> Tensor:
        """Weights ``[N, size, canvas]`` resizing a content of ``extent`` ``[N, 1]`` pixels.

        Rows sum to 1 over the content; beyond it, where pixels are 0, they are what they are.
        """
        extent = extent[:, :, None, None]
        # In an NPU's fp16 numbers near 1000 lie 0.5 apart, which is 18 grey levels off. So the middle of a
        # target pixel is a whole source pixel near it and a rest, which is small and taken from int32.
        near = (self.targets * (extent / (2 * self.size))).floor()
        rest = self.targets * extent.to(torch.int32) - self.size * (2 * near.to(torch.int32) + 1)
        apart = (self.index - near) - rest.to(torch.float32) / (2 * self.size)
        reach = (extent / self.size).clamp(min=1.0)  # in source pixels: antialias only when shrinking
        taps = self.kernel(apart.abs(), reach)
        inside = (extent - self.index).clamp(0.0, 1.0)
        taps = taps / (taps @ inside.mT)
        return taps.reshape(-1, self.size, self.canvas)


class FixedResize(nn.Module):
    """``height`` x ``width`` to ``size`` x ``size`` as PIL would, by two products with constant matrices."""

    across: Tensor
    down: Tensor

    def __init__(self, height: int, width: int, size: int, interpolation: str, high: float) -> None:
        super().__init__()
        self.high = high
        for name, extent in (("across", width), ("down", height)):
            maker = ContentResize(extent, extent, size, interpolation, high)
            weights = maker.weights(torch.tensor([[float(extent)]]))[0]
            self.register_buffer(name, weights, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        rows = (image @ self.across.T).clamp(0.0, self.high)
        return (self.down @ rows).clamp(0.0, self.high)


def _bilinear(distance: Tensor, reach: Tensor) -> Tensor:
    return (reach - distance).clamp(min=0.0)


def _bicubic(distance: Tensor, reach: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, PIL's choice, times 2: two ramps, no branch on the distance.

    In units of ``reach``: in source pixels the sum of the taps grows with its fourth power, and one divided
    by that is nothing in an NPU's fp16 from 10 on (1024 pixels to 96).
    """
    outer = (2 - distance / reach).clamp(min=0.0)
    past = outer - 1
    inner = past.clamp(min=0.0)
    return past * (outer * outer + inner * (2 - 4 * inner))


# An NPU keeps tensors in tiles of 8 rows: weights in one row only would fill an eighth of each.
_TILE = 8
# Times a line's mean, this passes 1 even if a single pixel of it has the value 1 out of 255.
_LIT = 1e4

_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}


class TextAdapter(nn.Module):
    """Contract text -> ids int32 ``[N, length]``, padded the tower's own way.

    Ids after the first end-of-text id become the tower's ``pad_id``. A text that does not fit into
    ``length`` is cut and keeps its end-of-text id, as the tokenizer itself would cut it.
    """

    def __init__(self, text: TextInput, spec: TextSpec, length: int) -> None:
        super().__init__()
        if text.pad_id != text.eot_id:
            raise ContractError("text.pad_id", f"the end-of-text id {text.eot_id}", str(text.pad_id))
        longest = min(text.length, spec.context_length)
        if not 3 <= length <= longest:
            raise ContractError("text_length", f"3 to {longest} tokens", str(length))
        self.has_mask, self.full_length, self.length = text.has_mask, text.length, length
        self.host_eot_id, self.eot_id, self.pad_id = text.eot_id, spec.eot_id, spec.pad_id

    def forward(self, text: Tensor) -> Tensor:
        if self.has_mask:
            ids, mask = text[0], text[1]
        else:
            ids, mask = text, self.mask_of(text)
        kept, tail = mask[:, : self.length], mask[:, self.length : self.length + 1]
        ids = ids[:, : self.length]
        if self.length < self.full_length:
            # tail is 1 where the text goes on past the cut: its last kept token gives way to the EOT
            last = ids[:, -1:] * (1 - tail) + self.eot_id * tail
            ids = torch.cat([ids[:, :-1], last], dim=1)
        return ids * kept + self.pad_id * (1 - kept)

    def mask_of(self, ids: Tensor) -> Tensor:
        """1 up to and including the first end-of-text id: pads repeat that id, so look one step back."""
        is_token = (ids != self.host_eot_id).to(ids.dtype)
        return torch.cat([torch.ones_like(ids[:, :1]), is_token[:, :-1]], dim=1)
