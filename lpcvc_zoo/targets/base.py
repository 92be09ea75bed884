"""What every target can do and what a measurement looks like, whatever measured it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field

from lpcvc_zoo.contract import TOWERS as TOWERS
from lpcvc_zoo.contract import Tower as Tower
from lpcvc_zoo.exporting.precision import FLOAT
from lpcvc_zoo.exporting.rewrites import NONE, NPU
from lpcvc_zoo.targets.references import CompileReference, InferenceReference, ProfileReference, Reference

Array = NDArray[np.generic]
FP16 = "NPU, fp16"  # the unit of a node that a compiler leaves in floats


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


class LayerTraffic(_Record):
    """What the compiled operations of one layer move, per inference.

    ``name`` and ``type`` are of the graph's own node; None where the compiler added the operations itself.
    """

    name: str | None
    type: str | None
    dram_read_bytes: int
    dram_write_bytes: int
    vtcm_read_bytes: int
    vtcm_write_bytes: int
    ops: int
    dma_ops: int


class Traffic(_Record):
    """A compiler's static estimate for one tower: bytes moved per inference. Not a measurement, not a time.

    DRAM is the device's memory, VTCM the NPU's own; a DMA transfer counts in both. ``ops`` are operations of
    the compiled graph, ``dma_ops`` those that only move data. ``spill_bytes``: written to DRAM because
    VTCM was full. ``layers`` in the graph's order, where asked for.
    """

    dram_read_bytes: int
    dram_write_bytes: int
    vtcm_read_bytes: int
    vtcm_write_bytes: int
    spill_bytes: int | None = None
    ops: int
    dma_ops: int
    layers: tuple[LayerTraffic, ...] | None = None

    @property
    def dram_bytes(self) -> int:
        return self.dram_read_bytes + self.dram_write_bytes

    @property
    def vtcm_bytes(self) -> int:
        return self.vtcm_read_bytes + self.vtcm_write_bytes


class Profile(_Record):
    """One tower measured on one target. A field that the target can't know is None, never zero.

    ``load_ms``: the first load, with whatever the runtime prepares then; ``warm_load_ms``: a later one.
    ``estimated_ms``: a service's own headline latency, beside the iterations it is drawn from.
    ``operators``: all of them, or the slowest; ``layers_by_unit`` counts all, by the unit that ran them.
    """

    target: str
    device: str
    runtime_versions: dict[str, str]
    threads: int | None = None
    latency: Latency | None = None
    estimated_ms: float | None = None
    load_ms: float | None = None
    warm_load_ms: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_range_bytes: tuple[int, int] | None = None
    file_bytes: int | None = None
    operators: tuple[OperatorTime, ...] | None = None
    layers_by_unit: dict[str, int] | None = None
    traffic: Traffic | None = None
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

    A target may also have ``rewrites``, the name of those that suit it (see ``rewrites_for``).
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


def rewrites_for(target: Target, precision: str = FLOAT) -> str:
    """What an export for a target is rewritten with: what it asks for, else nothing.

    Quantised for an NPU, it is the NPU's form on every target: one file, and so one recall.
    """
    usual = NONE if precision == FLOAT else NPU
    wanted: str = getattr(target, "rewrites", usual)
    return wanted


@runtime_checkable
class AsyncTarget(Target, Protocol):
    """A target whose work takes long and goes on elsewhere: submit now, collect in any process later.

    ``submit_*`` returns at once, and for the same work returns the same jobs again instead of new ones,
    except where the earlier job failed for a reason that may have passed. A reference that was just submitted
    may be built on before it is done. ``compile``, ``profile`` and ``infer`` are both in one.
    """

    def submit_compile(self, onnx_file: Path, tower: Tower) -> CompileReference: ...

    def submit_profile(self, compiled: Compiled | CompileReference) -> ProfileReference: ...

    def submit_infer(
        self, compiled: Compiled | CompileReference, inputs: Mapping[str, Array]
    ) -> InferenceReference: ...

    def state(self, reference: Reference) -> Literal["running", "done", "failed"]:
        """How far the jobs of a reference are, without waiting."""
        ...

    @overload
    def collect(self, reference: CompileReference) -> Compiled: ...

    @overload
    def collect(self, reference: ProfileReference) -> Profile: ...

    @overload
    def collect(self, reference: InferenceReference) -> dict[str, Array]: ...
