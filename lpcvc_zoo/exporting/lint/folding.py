"""What a graph computes of constants and static shapes alone, as a compiler folds it, and what follows."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lpcvc_zoo.exporting.lint.bodies import bodies, branch
from lpcvc_zoo.exporting.lint.graph import Graph, attribute
from lpcvc_zoo.exporting.lint.shapes import FEW, Values, infer_node, static_shape

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Array

MOST = 2**20  # elements of a value that is taken or made
_HELD_AT_ONCE = {"Constant", "DequantizeLinear"}


def fold(graph: Graph, values: Values) -> tuple[Values, dict[str, Array]]:
    """Types and shapes of all values, and the values of nodes that take small constants and static shapes.

    Both at once, because a shape may be computed of another: Shape, Div, Reshape, and again Shape. What can't
    be computed is left out, and so is what comes after it.
    """
    values = dict(values)
    found: dict[str, Array] = {}
    for node in graph.every:
        if node.op_type == "Shape":
            found |= _shape(values, node)
        elif node.op_type == "ConstantOfShape":
            value = _number(graph, node.output[0], found)
            if value is not None and value.size <= MOST and _number(graph, node.input[0], found) is not None:
                found[node.output[0]] = value
        elif node.op_type not in _HELD_AT_ONCE and (given := _small_constants(graph, node, found)):
            found |= _computed(graph, node, given)
        if any(static_shape(values.get(name)) is None for name in node.output if name):
            values |= _typed(graph, node, values, found)
    return values, found


def _shape(values: Values, node: onnx.NodeProto) -> dict[str, Array]:
    shape = static_shape(values.get(node.input[0]))
    if shape is None:
        return {}
    wanted = slice(attribute(node, "start", 0), attribute(node, "end"))
    return {node.output[0]: np.array(shape[wanted], np.int64)}


def _typed(graph: Graph, node: onnx.NodeProto, values: Values, found: dict[str, Array]) -> Values:
    """Types of what a node makes of static inputs, where numbers that were computed by now decide them."""
    if bodies(node):
        return _chosen(graph, node, values, found)
    given: Values = {}
    numbers = {}
    for name in filter(None, node.input):
        shape = static_shape(values.get(name))
        if shape is None:
            return {}
        given[name] = values[name]
        number = _number(graph, name, found) if prod(shape) <= FEW else None
        if number is not None and number.shape == shape:
            numbers[name] = numpy_helper.from_array(number, name)
    made = infer_node(graph.model, node, given, numbers, graph.initializers)
    return {
        name: value for name, value in made.items() if static_shape(value) is not None or name not in values
    }


def _chosen(graph: Graph, node: onnx.NodeProto, values: Values, found: dict[str, Array]) -> Values:
    """Types of what an If makes whose condition is known: those of one of its bodies."""
    condition = _number(graph, node.input[0], found) if node.op_type == "If" else None
    if condition is None:
        return {}
    made = zip(node.output, branch(node, bool(condition)).output, strict=False)
    return {
        name: onnx.ValueInfoProto(name=name, type=values[inner.name].type)
        for name, inner in made
        if inner.name in values
    }


def _number(graph: Graph, name: str, found: dict[str, Array]) -> Array | None:
    try:
        return graph.held(name, found)
    except Exception:  # a tensor of another size than it says: the rules that look at it tell so
        return None


def _small_constants(graph: Graph, node: onnx.NodeProto, found: dict[str, Array]) -> dict[str, Array] | None:
    """What a node takes, by name; None where that is not all constant, known and small."""
    given: dict[str, Array] = {}
    for name in filter(None, node.input):
        made, stored = graph.producer.get(name), graph.initializers.get(name)
        filled = made is not None and made.op_type == "ConstantOfShape"  # of one element where not in found
        if filled and name not in found:
            return None
        large = stored is not None and np.prod(stored.dims) > MOST
        value = None if large else _number(graph, name, found)
        if value is None or value.size > MOST:
            return None
        given[name] = value
    return given


def _computed(graph: Graph, node: onnx.NodeProto, given: dict[str, Array]) -> dict[str, Array]:
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.output if name]
    try:
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        alone = helper.make_graph([node], "folded", inputs, outputs)
        model = helper.make_model(alone, opset_imports=graph.model.opset_import)
        with np.errstate(all="ignore"):  # an infinity is what is looked for
            values = [np.asarray(value) for value in ReferenceEvaluator(model).run(None, given)]
    except Exception:  # an operator that it does not know, or a wrong use of one: any kind of error
        return {}
    return {name: value for name, value in zip(names, values, strict=True) if value.size <= MOST}
