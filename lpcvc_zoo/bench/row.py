"""One measurement of one model: the row that the ledger keeps and the report draws."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.bench.cut import TextCut
from lpcvc_zoo.contract import Tower
from lpcvc_zoo.exporting.artifact import Parity
from lpcvc_zoo.retrieval.metrics import Scores
from lpcvc_zoo.targets.base import Profile


class RemoteJob(BaseModel):
    """A job that a row's numbers come from, and its page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    tower: Tower
    id: str
    url: str


class ResultRow(BaseModel):
    """Everything known about one grid cell after it ran. What was not measured is None.

    ``weights`` is "untrained" or "tag@sha". ``preprocess_ms`` is the in-graph preprocessing measured by
    itself at this entry's size; it is part of the image latency, not on top of it. ``dataset_fingerprint``
    identifies what ``dataset`` held, whose name others may have too. ``chance`` is what ranking
    at random would give on ``dataset``, by the contract's metric: computed, also where nothing was scored.
    ``*_gmacs`` are the entry's, so None for another image size, fewer tokens or fewer layers than its own.
    ``*_parity_cosine`` is of the exported tower, ``*_device_parity`` of a remote device's embeddings of
    ``dataset``, both against torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str  # hash of everything that identifies the cell
    entry: str
    family: str
    weights: str
    contract: str
    target: str
    device: str
    precision: str
    rewrites: tuple[str, ...] = ()
    text_length: int | None = None
    text_depth: int | None = None
    image_size: int | None = None
    embed_dim: int | None = None
    image_params: int | None = None
    text_params: int | None = None
    image_gmacs: float | None = None
    text_gmacs: float | None = None
    image: Profile | None = None
    text: Profile | None = None
    preprocess_ms: float | None = None
    dataset: str | None = None
    dataset_fingerprint: str | None = None
    chance: float | None = None
    scores: Scores | None = None
    image_parity_cosine: float | None = None
    text_parity_cosine: float | None = None
    image_device_parity: Parity | None = None
    text_device_parity: Parity | None = None
    image_sha256: str | None = None
    text_sha256: str | None = None
    jobs: tuple[RemoteJob, ...] = ()
    versions: dict[str, str] = {}
    error: str | None = None
    created: str  # ISO 8601, UTC

    @property
    def model(self) -> str:
        """The name ``build`` knows it by: "entry", or "entry.tag" with trained weights, without a hash."""
        return f"{self.entry}.{self.weights.split('@')[0]}" if self.trained else self.entry

    @property
    def trained(self) -> bool:
        return self.weights != "untrained"

    @property
    def cut(self) -> TextCut:
        return TextCut(self.text_length, self.text_depth)

    @property
    def image_ms(self) -> float | None:
        return self.image.latency.median_ms if self.image and self.image.latency else None

    @property
    def text_ms(self) -> float | None:
        return self.text.latency.median_ms if self.text and self.text.latency else None

    @property
    def image_moved_mb(self) -> float | None:
        """MB that go in and out of the NPU's own memory, by the compiler's static estimate."""
        return self.image.traffic.vtcm_bytes / 1e6 if self.image and self.image.traffic else None

    @property
    def text_moved_mb(self) -> float | None:
        return self.text.traffic.vtcm_bytes / 1e6 if self.text and self.text.traffic else None

    @property
    def moved_mb(self) -> float | None:
        if self.image_moved_mb is None or self.text_moved_mb is None:
            return None
        return self.image_moved_mb + self.text_moved_mb

    @property
    def total_ms(self) -> float | None:
        if self.image_ms is None or self.text_ms is None:
            return None
        return self.image_ms + self.text_ms
