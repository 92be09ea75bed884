"""An ONNX graph with the questions that lint rules ask of it answered once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.lint.bodies import branch, graphs_of, nodes_of, taken
from lpcvc_zoo.exporting.lint.shapes import Dim, Values, dimensions, infer, known_dtype, static_shape
from lpcvc_zoo.exporting.lint.validity import flaw
from lpcvc_zoo.exporting.lint.weights import external_files, read_weights

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Array

FILLED = ("Constant", "ConstantOfShape")  # operators whose value is an attribute


class Graph:
    """A model's graph: its constants and shapes, and who makes and who takes each value.

    Shapes that the file leaves out are inferred. Bodies of If, Loop and Scan count as parts of the graph.
    """

    def __init__(
        self, model: onnx.ModelProto, external: Sequence[str] = (), unread: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.external = tuple(external)  # names of the files that hold weights
        self.unread = tuple(unread)  # why some of these weights are not at hand
        graph = model.graph
        self._bodies = list(graphs_of(graph))[1:]
        self.initializers = {t.name: t for part in (graph, *self._bodies) for t in part.initializer}
        self.inputs = [value for value in graph.input if value.name not in self.initializers]
        self.outputs = list(graph.output)
        self.every = list(nodes_of(graph))  # also what is folded when it is compiled
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.every:
            self.producer |= {name: node for name in node.output if name}
            for name in taken(node):
                self.consumers[name].append(node)

    @cached_property
    def runtime(self) -> set[str]:
        """Values that depend on an input of the graph, or of a body of a loop, which no compiler unrolls.

        All others are folded when it is compiled, so is the shape of a static input.
        """
        loops = [value for body in self._bodies for value in body.input]
        found = {value.name for value in (*self.inputs, *loops)}
        for node in self.every:
            if any(name in found for name in taken(node)):
                found.update(name for name in node.output if name not in self._gone)
        return found

    def nodes(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes that run at inference, of these operator types or of all."""
        for node in self.every:
            if (not kinds or node.op_type in kinds) and any(name in self.runtime for name in node.output):
                yield node

    def maker(self, name: str, through: Set[str]) -> onnx.NodeProto | None:
        """The node that a run-time value comes from, looked for behind operators of these kinds."""
        node, seen = self.producer.get(name), set[str]()  # a file may go in a circle
        while node is not None and node.op_type in through and name not in seen:
            seen.add(name)
            name = next((given for given in node.input if given in self.runtime), "")
            node = self.producer.get(name)
        return node

    def constant(self, name: str) -> Array | None:
        """The value of an initializer, or of what a node holds, fills in or computes of constants alone.

        None for anything else, for data not at hand, or for much to compute. What is filled in is of one
        element where its shape is not known.
        """
        return self.held(name, self._folded)

    @property
    def _folded(self) -> dict[str, Array]:
        return self._settled[1]

    @property
    def _values(self) -> Values:
        return self._settled[0]

    @cached_property
    def _settled(self) -> tuple[Values, dict[str, Array]]:
        from lpcvc_zoo.exporting.lint.folding import fold  # which needs this file

        return fold(self, self._inferred[0])

    @cached_property
    def _inferred(self) -> tuple[Values, str | None]:
        return infer(self.model)

    @cached_property
    def _gone(self) -> set[str]:
        """What nothing computes at inference: folded values, and those of an If's other body."""
        left_out = [
            branch(node, not condition)
            for node in self.every
            if node.op_type == "If" and (condition := self.constant(node.input[0])) is not None
        ]
        return {name for body in left_out for node in nodes_of(body) for name in node.output} | {
            *self._folded
        }

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
        made = (node.output[0] for node in self.every if node.op_type in FILLED)
        for name in dict.fromkeys((*self.initializers, *made, *self._folded)):
            value = self.constant(name) if self.takers(name) else None
            if value is not None:
                yield name, value

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a value, without those whose result is known before anything runs."""
        return [node for node in self.consumers.get(name, ()) if node.output[0] not in self._gone]

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """A number for a static dimension, its name or None for a dynamic one; None where unknown."""
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return dimensions(value)

    def dtype(self, name: str) -> np.dtype[Any] | None:
        value = self._values.get(name)
        kind = 0 if value is None else value.type.tensor_type.elem_type
        return known_dtype(kind)

    @property
    def problem(self) -> str | None:
        """Why rules may have passed over something; None where it is valid and all types are known."""
        if (why := flaw(self.model)) is not None:
            return f"ONNX refuses it, so rules may have passed over anything: {why}"
        error = self._inferred[1]
        if error is not None:
            return f"shapes can't be inferred: {error}"
        static = all(static_shape(value) is not None for value in self.inputs)
        unknown = [
            (name, node)
            for node in self.nodes()
            for name in node.output
            if name and not self._is_known(name, static)
        ]
        if not unknown:
            return None
        name, node = unknown[0]
        return (
            f"types and shapes of {len(unknown)} values are not known, the first is {name} of {label(node)}"
        )

    def _is_known(self, name: str, static: bool) -> bool:
        """Whether a value's type is known and, where ``static`` inputs leave no other excuse, its axes."""
        value = self._values.get(name)
        if value is None or value.type.WhichOneof("value") is None:
            return False
        dtype = self.dtype(name)
        return not static or dtype is None or dtype.kind != "f" or self.shape(name) is not None


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


def is_wide(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear is of integers of 16 bits, by its zero point."""
    zero = graph.constant(node.input[2]) if len(node.input) > 2 else None
    return zero is not None and zero.dtype.itemsize == 2


def load_graph(path: Path) -> Graph:
    """Read a file, its external data too where they are there; ExportError where it is not an ONNX model."""
    if not path.is_file():
        raise ExportError(f"{path} is missing: expected an ONNX file.")
    try:
        model = onnx.load(path, load_external_data=False)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # protobuf's DecodeError, and others of onnx
        raise ExportError(f"{path} is not an ONNX model: {type(error).__name__}: {error}") from None
    if not (model.graph.node and model.graph.output):
        raise ExportError(f"{path} is not an ONNX model with at least one node and one output.")
    files = external_files(model)
    return Graph(model, files, read_weights(model, path.parent, files))
