"""AIMET as an engine: its quantisation simulator measures the ranges, and writes QDQ ONNX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Set
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from lpcvc_zoo.errors import ExportError, MissingExtraError
from lpcvc_zoo.exporting.engines import Prepared

PACKAGE, EXTRA = "aimet-onnx", "aimet"
_ASYMMETRIC = ("LayerNormalization", "MatMul")
# What AIMET calls a runtime configuration, like ONNX Runtime's settings for QNN. A MatMul is neither per
# channel, which the compiler refuses in places, nor symmetric: AIMET would make the activations that it
# multiplies symmetric too, and where the NPU has 8 bits for them, that costs one. Biases are int32, from the
# scales around them.
CONFIGURATION: dict[str, Any] = {
    "defaults": {
        "ops": {"is_output_quantized": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "per_channel_quantization": "False",
        "strict_symmetric": "False",
        "unsigned_symmetric": "False",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {
        **{name: {"per_channel_quantization": "True"} for name in ("Conv", "ConvTranspose", "Gemm")},
        **{name: {"params": {"weight": {"is_symmetric": "False"}}} for name in _ASYMMETRIC},
        **{name: {"encoding_constraints": {"min": 0.0, "max": 1.0}} for name in ("Sigmoid", "Softmax")},
    },
    "supergroups": [],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {},
}
_CLIPPING = ("Clip", "Relu")


class Aimet:
    """AIMET's simulator. A value is quantised where a node that makes or reads it is."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        configuration = prepared.folder / "aimet.json"
        configuration.write_text(json.dumps(CONFIGURATION), encoding="utf-8")
        model = onnx.load(prepared.path)
        self._nodes_of = nodes_by_value(model.graph)
        with _quiet():
            try:
                from aimet_onnx import QuantizationSimModel
            except (ImportError, OSError) as error:  # its own libraries want a certain Linux
                raise ExportError(f"AIMET is installed, but can't be loaded: {error}") from None
            self._simulator = QuantizationSimModel(
                model,
                param_type="int8",
                activation_type=f"int{prepared.bits}",
                config_file=str(configuration),
            )
        quantizers = self._simulator.qc_quantize_op_dict
        self._quantizers = {name: one for name, one in quantizers.items() if one.enabled}
        self._measured = False

    @property
    def version(self) -> str:
        return f"{PACKAGE} {installed_version()}"

    def write(self, kept: Set[str], out: Path) -> None:
        left_out = self.prepared.fixed | kept
        for name, quantizer in self._quantizers.items():
            quantizer.enabled = not self._nodes_of.get(name, set()) <= left_out
        with _quiet():
            if not self._measured:
                self._simulator.compute_encodings(
                    [{self.prepared.input: sample} for sample in self.prepared.samples]
                )
                self._measured = True
            model = self._simulator.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
        make_weights_unsigned(model)
        onnx.save(model, out)


def installed_version() -> str:
    """MissingExtraError where AIMET is not installed; it is not imported."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        raise MissingExtraError(PACKAGE, EXTRA) from None


def nodes_by_value(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """Names of the nodes that make or read each value and want it quantised.

    Nobody wants the bounds of a clip so, nor what only a clip reads: it is computed together with the clip,
    whose result has a range that is never wider.
    """
    nodes: dict[str, set[str]] = {}
    clipped_only: dict[str, bool] = {}
    for node in graph.node:
        clips = node.op_type in _CLIPPING
        for name in node.input[:1] if clips else node.input:
            nodes.setdefault(name, set()).add(node.name)
            clipped_only[name] = clipped_only.get(name, True) and clips
        for name in node.output:
            nodes.setdefault(name, set()).add(node.name)
    return {name: found for name, found in nodes.items() if not clipped_only.get(name, False)}


def make_weights_unsigned(model: onnx.ModelProto) -> None:
    """Write 8-bit weights as unsigned around 128: the same numbers in another type.

    ONNX Runtime adds products of unsigned and signed bytes up in 16 bits on many CPUs, and they saturate;
    products of two unsigned bytes it adds up exactly everywhere.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    for name in {name for node in steps for name in (node.input[0], *node.input[2:])} & stored.keys():
        if stored[name].data_type == TensorProto.INT8:
            moved = numpy_helper.to_array(stored[name]).astype(np.int16) + 128
            stored[name].CopyFrom(numpy_helper.from_array(moved.astype(np.uint8), name))


@contextmanager
def _quiet() -> Iterator[None]:
    """AIMET tells its workings on standard output, where the command line has its JSON."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
