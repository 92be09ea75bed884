"""What every target can do and what a measurement looks like, whatever measured it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field

from lpcvc_zoo.contract import TOWERS as TOWERS
from lpcvc_zoo.contract import Tower as Tower

Array = NDArray[np.generic]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Record):
    """All timed iterations of one tower at batch 1, in milliseconds, in the order measured."""

    iterations_ms: tuple[float, ...]
    warmup_iterations: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median_ms(self) -> float:
        return float(np.median(self.iterations_ms))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p10_ms(self) -> float:
        return float(np.percentile(self.iterations_ms, 10))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.iterations_ms, 90))


class OperatorTime(_Record):
    """Time spent in one operator of the graph, per inference, and the unit that ran it (NPU, GPU, CPU)."""

    name: str
    type: str
    time_ms: float | None = None
    unit: str | None = None


class Profile(_Record):
    """One tower measured on one target. A field that the target can't know is None, never zero."""

    target: str
    device: str
    runtime_versions: dict[str, str]
    threads: int | None = None
    latency: Latency | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    file_bytes: int | None = None
    operators: tuple[OperatorTime, ...] | None = None
    job_id: str | None = None
    job_url: str | None = None


class Compiled(_Record):
    """One tower made ready for a target; serialisable, so that another process can go on with it."""

    target: str
    device: str
    tower: Tower
    reference: str  # a file path for local targets, a job id for remote ones
    source_sha256: str  # of the ONNX file it was made from


class Target(Protocol):
    """Where towers are compiled, measured and run. ``exclusive``: latency here needs a quiet machine.

    A target may also have ``rewrites``, the name of those that suit it (see ``exporting.rewrites``), such as
    "npu"; without it towers are exported plainly.
    """

    name: str
    device: str
    exclusive: bool

    def fingerprint(self) -> dict[str, Any]:
        """Everything about this target that changes a measurement (versions, threads, options)."""
        ...

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled: ...

    def profile(self, compiled: Compiled) -> Profile: ...

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch: each input's batch axis may be longer than the compiled one's; outputs are stacked."""
        ...
