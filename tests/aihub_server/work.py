"""What the jobs do: real checks of real ONNX files, run in ONNX Runtime."""

from __future__ import annotations

import io
import shlex
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from qai_hub import public_api_pb2 as pb
from qai_hub.api_utils import io_spec_to_tensor_type_list_pb
from qai_hub.public_rest_api import TensorSpec
from qai_hub.util.dataset_entries_converters import dataset_entries_to_h5, h5_to_dataset_entries

RUNTIMES = {"qnn_dlc", "qnn_context_binary", "precompiled_qnn_onnx", "onnx", "tflite"}
FLAGS = {"--truncate_64bit_io": 0, "--target_runtime": 1, "--qairt_version": 1, "--output_names": 1}
NARROWED = {"int64": "int32"}


class Failure(Exception):
    """A job that fails, with the service's reason and number."""

    def __init__(self, reason: str, failure_type: int = 13003) -> None:
        super().__init__(reason)
        self.failure_type = failure_type


def unpacked(file: Path) -> Path:
    """The ONNX file of an upload: itself, or out of the zipped folder that holds it and its weights."""
    if not zipfile.is_zipfile(file):
        return file
    folder = file.with_suffix(".unzipped")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    models, data = list(folder.rglob("*.onnx")), list(folder.rglob("*.data"))
    if len(models) != 1 or len(data) > 1:
        raise Failure("Expected exactly one .onnx file and at most one .data file.", 13002)
    return models[0]


def options_of(text: str, known: dict[str, int]) -> dict[str, str]:
    words, found = shlex.split(text), {}
    while words:
        flag = words.pop(0)
        if flag not in known:
            raise Failure(f"unrecognized arguments: {flag}", 13001)
        found[flag] = words.pop(0) if known[flag] else ""
    return found


def specs_of(values: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        value.name: (
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in values
    }


def compile_model(file: Path, asked: dict[str, tuple[tuple[int, ...], str]], text: str) -> dict[str, Any]:
    """Check an ONNX file as the service does; what its compiled model takes and gives."""
    options = options_of(text, FLAGS)
    runtime = options.get("--target_runtime", "tflite")
    if runtime not in RUNTIMES:
        raise Failure(f"Unknown target runtime {runtime!r}.", 13001)
    try:
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(str(file))
    except Exception as error:
        raise Failure(f"The model is not valid ONNX: {error}", 13002) from None
    inputs, outputs = specs_of(model.graph.input), specs_of(model.graph.output)
    if asked and asked != inputs:
        raise Failure(f"Input specs {asked} do not match the model's inputs {inputs}.", 13000)
    wide = any(dtype == "int64" for _, dtype in inputs.values())
    narrow = "--truncate_64bit_io" in options
    if wide and not narrow and runtime != "onnx":
        raise Failure("Must use --truncate_64bit_io when input tensors have type int64.", 13001)
    return {
        "runtime": runtime,
        "inputs": {name: (shape, _narrow(dtype, narrow)) for name, (shape, dtype) in inputs.items()},
        "outputs": {name: (shape, _narrow(dtype, narrow)) for name, (shape, dtype) in outputs.items()},
    }


def io_message(specs: dict[str, tuple[tuple[int, ...], str]]) -> Any:
    return io_spec_to_tensor_type_list_pb(
        {None: [TensorSpec(name, dtype, shape) for name, (shape, dtype) in specs.items()]}
    )


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]
        return next(self._left, None)


def quantize(file: Path, to: Path, data: dict[str, list[Any]], sixteen_bits: bool) -> None:
    """Quantise as the service does: 8-bit weights, QDQ format."""
    inputs = specs_of(onnx.load(file, load_external_data=False).graph.input)
    samples = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    for sample in samples:
        _check(sample, inputs)
    quantize_static(
        str(file),
        str(to),
        _Samples(samples),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt16 if sixteen_bits else QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


def infer(
    file: Path, takes: dict[str, tuple[tuple[int, ...], str]], data: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Every sample by itself, 64-bit integers widened again where the compiled model takes 32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    wide = {value.name for value in session.get_inputs() if value.type == "tensor(int64)"}
    names = [value.name for value in session.get_outputs()]
    found: dict[str, list[Any]] = {name: [] for name in names}
    for values in zip(*data.values(), strict=True):
        sample = dict(zip(data, values, strict=True))
        _check(sample, takes)
        fed = {name: array.astype(np.int64) if name in wide else array for name, array in sample.items()}
        for name, output in zip(names, session.run(names, fed), strict=True):
            found[name].append(output)
    return found


def profile(file: Path, runtime: str, iterations: int) -> Any:
    """A profile whose numbers follow from the graph alone, so that every run gives the same."""
    model = onnx.load(file, load_external_data=False)
    weights = {tensor.name: int(np.prod(tensor.dims or [1])) for tensor in model.graph.initializer}
    layers, total = [], 0
    for node in model.graph.node:
        time_us = 2 + sum(weights.get(name, 0) for name in node.input) // 4096
        total += time_us
        on_cpu = runtime in ("onnx", "tflite") and node.op_type in ("ArgMax", "Gather", "Cast")
        layers.append(
            pb.LayerDetail(
                name=node.name,
                layer_type_name=node.op_type,
                compute_unit=pb.COMPUTE_UNIT_CPU if on_cpu else pb.COMPUTE_UNIT_NPU,
                execution_time=time_us,
                execution_cycles=1000 * time_us,
            )
        )
    size = file.stat().st_size
    detail = pb.ProfileDetail(
        major_version=1,
        minor_version=2,
        execution_time=total,
        cold_load_time=100_000 + size // 100,
        warm_load_time=50_000 + size // 200,
        after_execution_peak_memory=2 * size,
        all_execution_times=[total + (7 * step) % 13 for step in range(iterations)],
        layer_details=layers,
    )
    detail.execution_memory.peak.lower, detail.execution_memory.peak.upper = size, 2 * size
    return detail


def read_h5(file: Path) -> dict[str, list[Any]]:
    with h5py.File(file, "r") as opened:
        return dict(h5_to_dataset_entries(opened))


def h5_bytes(data: dict[str, list[Any]]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as opened:
        dataset_entries_to_h5(data, opened)
    return buffer.getvalue()


def _narrow(dtype: str, narrow: bool) -> str:
    return NARROWED.get(dtype, dtype) if narrow else dtype


def _check(sample: dict[str, Any], takes: dict[str, tuple[tuple[int, ...], str]]) -> None:
    given = {name: (tuple(array.shape), str(array.dtype)) for name, array in sample.items()}
    if given != takes:
        raise Failure(f"Inputs {given} do not match the model's {takes}.", 13000)
