"""Types and shapes of all values of a graph: those that its file says, and those that follow."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.external_data_helper import uses_external_data

from lpcvc_zoo.exporting.lint.bodies import graphs_of, nodes_of

Dim = int | str | None
Values = dict[str, onnx.ValueInfoProto]
CONTRIBUTED = "com.microsoft"  # the domain of ONNX Runtime's own operators
FEW = 1024  # numbers that may say a shape; more are weights


def infer(model: onnx.ModelProto) -> tuple[Values, str | None]:
    """Values by name, and why no more are known than the file says itself."""
    known = _declared(model.graph)
    if all(name in known for node in nodes_of(model.graph) for name in node.output if name):
        return known, None
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True)
    except Exception as error:  # a node or type it does not know
        return known, f"{type(error).__name__}: {error}"
    return known | _declared(inferred.graph), None


def infer_node(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    given: Values,
    numbers: dict[str, onnx.TensorProto],
    stored: dict[str, onnx.TensorProto],
) -> Values:
    """What one node makes of static inputs, of which ``numbers`` are known; nothing where ONNX can't say."""
    node = in_plain_onnx(node, stored)
    try:
        own = {node.domain, node.domain or "ai.onnx"}
        version = next(item.version for item in model.opset_import if item.domain in own)
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        types = {name: value.type for name, value in given.items()}
        made = onnx.shape_inference.infer_node_outputs(
            schema, node, types, numbers, opset_imports=list(model.opset_import)
        )
    except Exception:  # a node it does not know, or a wrong use of one: any kind of error
        return {}
    return {name: helper.make_value_info(name, kind) for name, kind in made.items()}


def known_dtype(kind: int) -> np.dtype[Any] | None:
    """numpy's type for one of ONNX's; None for a number that stands for none."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        return None


def dimensions(value: onnx.ValueInfoProto) -> tuple[Dim, ...]:
    """A number for a static dimension, its name or None for a dynamic one, which some write as -1."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def static_shape(value: onnx.ValueInfoProto | None) -> tuple[int, ...] | None:
    """A value's sizes where all are known."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = dimensions(value)
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else None


def in_plain_onnx(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    """What ONNX Runtime calls its own, such as 16-bit quantisation, in words ONNX knows.

    Of the same types and shapes, but not of the same values.
    """
    if node.domain != CONTRIBUTED:
        return node
    parts = [stored.get(name) for name in node.input]
    # Quantised to the type of the zero point, dequantised to that of the scale.
    place = 2 if node.op_type == "QuantizeLinear" else 1
    typed_by = parts[place] if len(parts) > place else None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and typed_by is not None:
        return helper.make_node("Cast", node.input[:1], node.output, to=typed_by.data_type)
    return helper.make_node("Identity", node.input, node.output) if node.op_type == "Gelu" else node


def _declared(graph: onnx.GraphProto) -> Values:
    known: Values = {}
    for each in graphs_of(graph):
        known |= {value.name: value for value in (*each.input, *each.value_info, *each.output)}
        known |= {tensor.name: _described(tensor.name, tensor) for tensor in each.initializer}
    return known


def _described(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, tensor.data_type, tuple(tensor.dims))


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large constants as inputs: shapes need none of their numbers, and inferring copies."""
    graph = model.graph
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = graph.name
    light.graph.input.extend(graph.input)
    light.graph.value_info.extend(graph.value_info)
    light.graph.output.extend(graph.output)
    light.graph.initializer.extend(tensor for tensor in graph.initializer if not _is_heavy(tensor))
    light.graph.sparse_initializer.extend(graph.sparse_initializer)
    given = {value.name for value in graph.input}
    heavy = [(tensor.name, tensor) for tensor in graph.initializer if _is_heavy(tensor)]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        held = [(node.output[0], tensor) for tensor in _held(node) if _is_heavy(tensor)]
        heavy += held
        if not held:
            light.graph.node.append(in_plain_onnx(node, stored))
    light.graph.input.extend(_described(name, tensor) for name, tensor in heavy if name not in given)
    return light


def _held(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    if node.op_type == "Constant":
        yield from (item.t for item in node.attribute if item.name == "value")


def _is_heavy(tensor: onnx.TensorProto) -> bool:
    return prod(tensor.dims) > FEW or uses_external_data(tensor)
