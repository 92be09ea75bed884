"""What quantises a prepared tower: ONNX Runtime's own quantiser, or AIMET."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from lpcvc_zoo.errors import UnknownNameError

ENGINES = ("onnxruntime", "aimet")


@dataclass(frozen=True)
class Prepared:
    """A float tower that ONNX Runtime's steps for QNN have prepared, and what quantising it needs.

    ``samples``: arrays for ``input``, one inference each. ``bits``: of activations, 8 or 16. ``fixed``: names
    of nodes that are never quantised. ``folder``: for files in between.
    """

    path: Path
    input: str
    samples: list[Any]
    bits: int
    fixed: Set[str]
    folder: Path


class Engine(Protocol):
    """Quantises one prepared tower, as often as asked; its ranges are measured once."""

    @property
    def version(self) -> str:
        """The package and its version, as the manifest has it: "onnxruntime 1.32.0"."""

    def write(self, kept: Set[str], out: Path) -> None:
        """Write QDQ ONNX in which the fixed nodes and these are float. The first call must keep none."""


def find_engine(name: str) -> Callable[[Prepared], Engine]:
    """The engine of a name. UnknownNameError suggests the nearest, MissingExtraError says what to install."""
    if name == "aimet":
        from lpcvc_zoo.exporting.aimet import Aimet, installed_version

        installed_version()
        return Aimet
    if name != "onnxruntime":
        raise UnknownNameError("engine", name, ENGINES)
    return OnnxRuntime


class OnnxRuntime:
    """ONNX Runtime's static quantiser with its settings for QNN: smallest and largest value are the range."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    @property
    def version(self) -> str:
        return f"onnxruntime {version('onnxruntime')}"

    def write(self, kept: Set[str], out: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

        prepared = self.prepared

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left = iter(prepared.samples)

            def get_next(self) -> dict[str, Any] | None:
                sample = next(self.left, None)
                return None if sample is None else {prepared.input: sample}

        config = get_qnn_qdq_config(
            str(prepared.path),
            Reader(),
            activation_type=QuantType.QUInt16 if prepared.bits == 16 else QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            per_channel=True,
            nodes_to_exclude=sorted(prepared.fixed | kept),
        )
        quantize_static(
            str(prepared.path),
            str(out),
            Reader(),
            activation_type=config.activation_type,
            weight_type=config.weight_type,
            op_types_to_quantize=config.op_types_to_quantize,
            nodes_to_exclude=config.nodes_to_exclude,
            per_channel=True,
            extra_options=config.extra_options,
            # written by the first call; later ones, with fewer operators, look the ranges up
            calibration_cache_path=prepared.folder / "ranges.json",
        )
