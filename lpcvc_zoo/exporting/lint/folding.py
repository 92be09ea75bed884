"""What a graph computes of constants alone, as a compiler folds it: an unfolded export holds such."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from lpcvc_zoo.exporting.lint.graph import Graph, attribute

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Array

MOST = 2**20  # elements of a value that is taken or made
_HELD_AT_ONCE = {"Constant", "DequantizeLinear"}


def fold(graph: Graph) -> dict[str, Array]:
    """Values of nodes that take small constants and static shapes alone.

    What can't be computed is left out, and so is what comes after it.
    """
    found: dict[str, Array] = {}
    for node in graph.model.graph.node:
        if node.op_type == "Shape":
            found |= _shape(graph, node)
        elif node.op_type == "ConstantOfShape":
            value = graph.held(node.output[0], found)
            if value is not None and value.size <= MOST and graph.held(node.input[0], found) is not None:
                found[node.output[0]] = value
        elif node.op_type not in _HELD_AT_ONCE and (given := _small_constants(graph, node, found)):
            found |= _computed(graph, node, given)
    return found


def _shape(graph: Graph, node: onnx.NodeProto) -> dict[str, Array]:
    shape = graph.shape(node.input[0])
    if shape is None or not all(isinstance(size, int) for size in shape):
        return {}
    wanted = slice(attribute(node, "start", 0), attribute(node, "end"))
    return {node.output[0]: np.array(shape[wanted], np.int64)}


def _small_constants(graph: Graph, node: onnx.NodeProto, found: dict[str, Array]) -> dict[str, Array] | None:
    """What a node takes, by name; None where that is not all constant, known and small."""
    given: dict[str, Array] = {}
    for name in filter(None, node.input):
        made, stored = graph.producer.get(name), graph.initializers.get(name)
        filled = made is not None and made.op_type == "ConstantOfShape"  # of one element where not in found
        if (filled or name in graph.runtime) and name not in found:
            return None
        large = stored is not None and np.prod(stored.dims) > MOST
        value = None if large else graph.held(name, found)
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
