"""All texts of a run, true and derived, as the ids that the text tower gets on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.retrieval.records import text_key
from lpcvc_zoo.training.words import false_texts, mirrored, names_direction, names_place

_AT_ONCE = 4096


@dataclass(frozen=True)
class TextPool:
    """``texts``: the data's own, then mirrored ones, then, from ``true`` on, false ones.

    Of each of the data's own: ``directional``, ``placed``: whether a flip, or a crop, could make it false;
    ``mirror``: its place once its image is flipped, itself where no direction is named; ``negatives``
    ``[own, M]``: places of false texts, -1 where there are fewer.
    """

    texts: tuple[str, ...]
    true: int
    directional: NDArray[np.bool_]
    placed: NDArray[np.bool_]
    mirror: NDArray[np.int64]
    negatives: NDArray[np.int64]


def text_pool(texts: tuple[str, ...], *, mirror: bool, negatives: int) -> TextPool:
    """The pool for these texts, with mirrored ones and so many false ones each as asked for."""
    keys = {text_key(text): index for index, text in enumerate(texts)}
    everything = list(texts)

    def place(text: str) -> int:
        index = keys.setdefault(text_key(text), len(everything))
        if index == len(everything):
            everything.append(text)
        return index

    directional = np.array([names_direction(text) for text in texts], bool)
    placed = np.array([names_place(text) for text in texts], bool)
    mirrors = np.arange(len(texts))
    wrong = np.full((len(texts), negatives), -1)
    if mirror:
        mirrors = np.array([place(mirrored(text)) for text in texts], np.int64)
    true = len(everything)
    for row, text in zip(wrong, texts, strict=True):
        false = [place(item) for item in false_texts(text, negatives)] if negatives else []
        row[: len(false)] = false
    return TextPool(tuple(everything), true, directional, placed, mirrors, wrong)


@dataclass(frozen=True)
class TowerIds:
    """Ids int32 ``[N, length]`` as the tower gets them: the contract's own, through the graph's adapter.

    ``lengths`` ``[N]`` counts the tokens up to the end of text; None where pads make a difference.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: NDArray[np.int64]) -> torch.Tensor:
        """``[*places, L]``: for causal towers cut where the longest of them ends, which changes nothing."""
        longest = self.ids.shape[1] if self.lengths is None else int(self.lengths[places].max())
        return torch.from_numpy(self.ids[places, :longest])


@torch.inference_mode()
def tower_ids(texts: tuple[str, ...], model: DualEncoder) -> TowerIds:
    """The ids of these texts for a model under its contract."""
    adapter, spec = model.text_encoder.adapter.cpu(), model.entry.text
    parts = [
        adapter(torch.from_numpy(model.contract.prepare_text(texts[begin : begin + _AT_ONCE]))).numpy()
        for begin in range(0, len(texts), _AT_ONCE)
    ]
    ids: NDArray[np.int32] = np.concatenate(parts).astype(np.int32, copy=False)
    return TowerIds(ids, (ids == spec.eot_id).argmax(axis=1) + 1 if spec.causal else None)
