"""Recall on a validation set, quickly: its pixels and ids are prepared once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.model import DualEncoder, Towers, unit_length
from lpcvc_zoo.retrieval.metrics import Recall, score
from lpcvc_zoo.training.pixels import CachedPixelAdapter, Done, cached_pixels
from lpcvc_zoo.training.sources import TrainingData
from lpcvc_zoo.training.texts import tower_ids

_AT_ONCE = 64


class Validation:
    """Scores towers by the contract's own metric, image to text, on pixels rounded to bytes (see ``pixels``).

    On a pool smaller than the metric's k, the largest k that says something takes its place.
    """

    def __init__(
        self,
        data: TrainingData,
        model: DualEncoder,
        *,
        device: torch.device,
        workers: int = 0,
        done: Done | None = None,
    ) -> None:
        self.dataset = data.as_dataset("validation")
        self.device, self.mode = device, model.contract.metric.mode
        self.k = next((k for k in (model.contract.metric.k, 5, 1) if 2 * k <= len(data.texts)), 1)
        if not data.tells_models_apart:
            raise TrainingError(
                f"The validation set has {len(data.images)} images and {len(data.texts)} texts, all of them "
                "true of every image: any model would find them. Give more data."
            )
        self.pixels = cached_pixels(data.images, model, device=device, workers=workers, done=done)
        self.ids = tower_ids(data.texts, model)
        self.adapter = CachedPixelAdapter(model.image_encoder.adapter, model.contract.image.high)

    @property
    def label(self) -> str:
        kind = "fractional" if self.mode == "fraction" else "any-hit"
        return f"recall@{self.k} ({kind}, image to text)"

    @torch.no_grad()
    def recall(self, towers: Towers) -> Recall:
        """With its interval and chance. TrainingError where an embedding is not a number."""
        training = [part.training for part in towers.modules()]
        towers.eval()
        adapter = self.adapter.to(self.device)
        images = self._embedded(
            len(self.pixels),
            lambda part: towers.image(adapter(torch.from_numpy(self.pixels.rows(part)).to(self.device))),
        )
        texts = self._embedded(
            len(self.ids), lambda part: towers.text(self.ids.of(np.array(part)).to(self.device))
        )
        for part, was in zip(towers.modules(), training, strict=True):
            part.training = was
        if not (np.isfinite(images).all() and np.isfinite(texts).all()):
            raise TrainingError("A tower gives embeddings that are not numbers on the validation set.")
        return score(images, texts, self.dataset, [self.k]).recall(self.k, self.mode)

    def _embedded(self, count: int, run: Callable[[range], Tensor]) -> NDArray[np.float32]:
        parts = [
            unit_length(run(range(begin, min(begin + _AT_ONCE, count))).float()).cpu().numpy()
            for begin in range(0, count, _AT_ONCE)
        ]
        result: NDArray[np.float32] = np.concatenate(parts)
        return result
