"""The ONNX file that goes up: what crosses its boundary, what lies beside it, and its hash."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpcvc_zoo.contract import Tower
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.files import sha256_of

# Inputs as the client wants them: name -> (shape, dtype).
Specs = dict[str, tuple[tuple[int, ...], str]]
ENCODINGS = ".encodings"
DTYPES = frozenset("float16 float32 bool int8 int16 int32 int64 uint8 uint16".split())


@dataclass(frozen=True)
class Source:
    """An ONNX file with static inputs. ``data``: the file beside it that holds its weights, if one does.

    ``encodings``: AIMET's, where they lie beside it under its name. ``sha256`` is of the file itself, as
    everywhere; ``content`` also covers the other two.
    """

    path: Path
    data: Path | None
    encodings: Path | None
    inputs: Specs
    wide: bool  # whether an input or output has 64 bits
    sha256: str
    content: str

    @contextmanager
    def packed(self) -> Iterator[Path]:
        """What to upload: the file, or a folder with the file and its weights, as the service wants it."""
        if self.data is None and self.encodings is None:
            yield self.path
            return
        import onnx

        with tempfile.TemporaryDirectory(prefix="lpcvc_zoo_") as name:
            folder = Path(name) / ("model.aimet" if self.encodings else "model")
            folder.mkdir()
            model = onnx.load(self.path, load_external_data=False)
            for tensor in model.graph.initializer:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = "model.data"
            onnx.save(model, folder / "model.onnx")
            for file, suffix in ((self.data, ".data"), (self.encodings, ".encodings")):
                if file is not None:
                    shutil.copyfile(file, folder / f"model{suffix}")
            yield folder


def read_source(onnx_file: Path, tower: Tower) -> Source:
    """Look at an ONNX file; TargetError says what about it the service would refuse."""
    import onnx

    path = Path(onnx_file)
    if not path.is_file():
        raise TargetError(f"{path} is missing: expected an exported {tower} tower. Export the model again.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's exceptions differ between its versions
        raise TargetError(f"{path} is not an ONNX file: {error}") from None
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: Specs = {}
    for value in model.graph.input:
        if value.name not in weights:
            shape, dtype = _shape(path, value), _dtype(value)
            if dtype not in DTYPES:
                known = ", ".join(sorted(DTYPES))
                raise TargetError(f"{path}: input {value.name!r} is {dtype}; AI Hub takes {known}.")
            inputs[value.name] = (shape, dtype)
    wide = "int64" in {*(dtype for _, dtype in inputs.values()), *map(_dtype, model.graph.output)}
    data = _data_file(path, model)
    encodings = path.with_suffix(ENCODINGS) if path.with_suffix(ENCODINGS).is_file() else None
    sha256 = sha256_of(path)
    hashes = [sha256, *(sha256_of(file) for file in (data, encodings) if file is not None)]
    content = hashlib.sha256(" ".join(hashes).encode()).hexdigest() if len(hashes) > 1 else sha256
    return Source(path, data, encodings, inputs, wide, sha256, content)


def _shape(path: Path, value: Any) -> tuple[int, ...]:
    dimensions = value.type.tensor_type.shape.dim
    shape = tuple(dimension.dim_value for dimension in dimensions)
    if not shape or any(size < 1 for size in shape):
        shown = [dimension.dim_param or dimension.dim_value or "?" for dimension in dimensions]
        raise TargetError(f"{path}: input {value.name!r} has shape {shown}; expected only fixed sizes.")
    return shape


def _dtype(value: Any) -> str:
    import onnx

    kind = value.type.tensor_type.elem_type
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, ValueError):
        return f"of ONNX type {kind}"


def _data_file(path: Path, model: Any) -> Path | None:
    import onnx

    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if not names:
        return None
    if len(names) > 1:
        raise TargetError(
            f"{path} keeps its weights in {len(names)} files ({', '.join(sorted(names)[:3])}, ...); AI Hub "
            "takes one. Save it with onnx.save(..., save_as_external_data=True) once more."
        )
    data: Path = path.parent / names.pop()
    if not data.is_file():
        raise TargetError(f"{data} is missing: {path} keeps its weights there.")
    return data
