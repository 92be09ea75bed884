"""An ONNX graph with the questions that lint rules ask of it answered once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lpcvc_zoo.errors import ExportError

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Array

Dim = int | str | None
FILLED = ("Constant", "ConstantOfShape")  # operators whose value is an attribute
CONTRIBUTED = "com.microsoft"  # the domain of ONNX Runtime's own operators
_LARGEST_PROTO = 2**31 - 1


class Graph:
    """A model's main graph: its constants and shapes, and who makes and who takes each value.

    Shapes that the file leaves out are inferred. Bodies of If and Loop are not looked into: no NPU runs them.
    """

    def __init__(self, model: onnx.ModelProto, external: Sequence[str] = ()) -> None:
        self.model = model
        self.external = tuple(external)  # names of the files that hold weights
        graph = model.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value for value in graph.input if value.name not in self.initializers]
        self.outputs = list(graph.output)
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            self.producer |= {name: node for name in node.output if name}
            for name in node.input:
                self.consumers[name].append(node)

    @cached_property
    def runtime(self) -> set[str]:
        """Values that depend on an input of the graph; all others are folded when it is compiled."""
        found = {value.name for value in self.inputs}
        for node in self.model.graph.node:
            if any(name in found for name in node.input):
                found.update(node.output)
        return found

    def nodes(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes that run at inference, of these operator types or of all."""
        for node in self.model.graph.node:
            if (not kinds or node.op_type in kinds) and any(name in self.runtime for name in node.output):
                yield node

    def constant(self, name: str) -> Array | None:
        """The value of an initializer, or of what a node holds, fills in or computes of constants alone.

        None for anything else, for data not at hand, or for much to compute. What is filled in is of one
        element where its shape is not known.
        """
        return self.held(name, self._folded)

    @cached_property
    def _folded(self) -> dict[str, Array]:
        from lpcvc_zoo.exporting.lint.folding import fold  # which needs this file

        return fold(self)

    def held(self, name: str, folded: Mapping[str, Array]) -> Array | None:
        """As ``constant``, with no more computed values than those in ``folded``."""
        if name in self.initializers:
            return _array(self.initializers[name])
        node = self.producer.get(name)
        if node is not None and node.op_type == "DequantizeLinear":
            return self._dequantised(node, folded)
        if node is None or node.op_type not in FILLED:
            return folded.get(name)
        zeros = np.zeros(1, np.float32)  # what ConstantOfShape fills in by itself
        value = _array(helper.get_attribute_value(node.attribute[0]) if node.attribute else zeros)
        if value is None or node.op_type == "Constant":
            return value
        shape = self.held(node.input[0], folded)
        return np.broadcast_to(value.reshape(()), (1,) if shape is None else tuple(map(int, shape)))

    def _dequantised(self, node: onnx.NodeProto, folded: Mapping[str, Array]) -> Array | None:
        parts = [self.held(name, folded) for name in node.input]
        if any(part is None for part in parts) or attribute(node, "block_size", 0):
            return None
        values, *rest = (np.asarray(part, np.float32) for part in parts)
        if rest[0].size > 1:
            axis = attribute(node, "axis", 1)
            rest = [np.moveaxis(part.reshape(-1, *[1] * (values.ndim - 1)), 0, axis) for part in rest]
        return (values - rest[1] if len(rest) > 1 else values) * rest[0]

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Names and values of all constants that some node takes which is not folded itself."""
        made = (node.output[0] for node in self.model.graph.node if node.op_type in FILLED)
        for name in dict.fromkeys((*self.initializers, *made, *self._folded)):
            value = self.constant(name) if self.takers(name) else None
            if value is not None:
                yield name, value

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a value, without those whose result is known before anything runs."""
        return [node for node in self.consumers.get(name, ()) if node.output[0] not in self._folded]

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """A number for a static dimension, its name or None for a dynamic one; None where unknown."""
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return dimensions(value)

    def dtype(self, name: str) -> np.dtype[Any] | None:
        kind = 0
        if name in self.initializers:
            kind = self.initializers[name].data_type
        elif name in self._values:
            kind = self._values[name].type.tensor_type.elem_type
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind)) if kind else None

    @property
    def problem(self) -> str | None:
        """Why rules about types and shapes may have passed over some value; None where all are known."""
        values, error = self._inferred
        if error is not None:
            return f"shapes can't be inferred: {error}"
        unknown = [
            (name, node)
            for node in self.nodes()
            for name in node.output
            if name and (name not in values or values[name].type.WhichOneof("value") is None)
        ]
        if not unknown:
            return None
        name, node = unknown[0]
        return (
            f"types and shapes of {len(unknown)} values are not known, the first is {name} of {label(node)}"
        )

    @property
    def _values(self) -> dict[str, onnx.ValueInfoProto]:
        return self._inferred[0]

    @cached_property
    def _inferred(self) -> tuple[dict[str, onnx.ValueInfoProto], str | None]:
        """Values by name, and why no more are known than the file says itself."""
        graph = self.model.graph
        known = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        if all(name in known for name in self.producer):
            return known, None
        try:
            graph = onnx.shape_inference.infer_shapes(self._in_plain_onnx(), data_prop=True).graph
        except Exception as error:  # a node or type it does not know
            return known, f"{type(error).__name__}: {error}"
        return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}, None

    def _in_plain_onnx(self) -> onnx.ModelProto:
        """The model with what ONNX Runtime calls its own, such as 16-bit quantisation, in words ONNX knows.

        Of the same types and shapes, but not of the same values.
        """
        own = [at for at, node in enumerate(self.model.graph.node) if node.domain == CONTRIBUTED]
        if not own:
            return self.model
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for at in own:
            node = model.graph.node[at]
            parts = [self.initializers.get(name) for name in node.input]
            # Quantised to the type of the zero point, dequantised to that of the scale.
            place = 2 if node.op_type == "QuantizeLinear" else 1
            typed_by = parts[place] if len(parts) > place else None
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and typed_by is not None:
                cast = helper.make_node("Cast", node.input[:1], node.output, to=typed_by.data_type)
                node.CopyFrom(cast)
            elif node.op_type == "Gelu":
                node.CopyFrom(helper.make_node("Identity", node.input, node.output))
        return model


def dimensions(value: onnx.ValueInfoProto) -> tuple[Dim, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def _array(value: Any) -> Array | None:
    """A tensor's, or an attribute's, numbers; None for a tensor whose data is not at hand."""
    if not isinstance(value, onnx.TensorProto):
        numbers = np.asarray(value)
        return numbers.astype(np.float32) if numbers.dtype == np.float64 else numbers  # ONNX knows no other
    if onnx.external_data_helper.uses_external_data(value):
        return None
    array: Array = numpy_helper.to_array(value)
    return array


def label(node: onnx.NodeProto) -> str:
    """How a report names a node: by its name, or by what it makes where it has none."""
    return node.name or f"{node.op_type} -> {node.output[0]}"


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; text as str."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def load_graph(path: Path) -> Graph:
    """Read a file, its external data too where they are there; ExportError where it is not an ONNX model."""
    if not path.is_file():
        raise ExportError(f"{path} is missing: expected an ONNX file.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and others of onnx
        raise ExportError(f"{path} is not an ONNX model: {type(error).__name__}: {error}") from None
    if not model.graph.node:
        raise ExportError(f"{path} is not an ONNX model with at least one node.")
    files = external_files(model)
    at_hand = all((path.parent / name).is_file() for name in files)
    if files and at_hand and sum((path.parent / name).stat().st_size for name in files) < _LARGEST_PROTO:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    return Graph(model, files)


def external_files(model: onnx.ModelProto) -> list[str]:
    """Names of the files that hold a model's weights beside it."""
    return sorted(
        {
            entry.value
            for tensor in model.graph.initializer
            if onnx.external_data_helper.uses_external_data(tensor)
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )
