"""Pooling before what acts on each token alone: the last block's MLP runs for the one token that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.lint.shapes import Dim

_ALONE = {"Clip", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "Neg", "Relu", "Sigmoid", "Tanh"}
_BETWEEN = {"Add", "Div", "Mul", "Sub"}


def early_pool(model: onnx.ModelProto) -> int:
    """Nodes ``[1, L, C]`` that only the pooled token needs take that token alone; the count is of nodes.

    Pooled is what a Gather takes at one place of axis 1 (a class token), or a product with a one-hot of an
    id (the end of the text). Normalisation, projections and activations give a token the same before and
    after that; attention does not, and is where it ends.
    """
    graph = Graph(model)
    found = {node.output[0]: _pooled(graph, node) for node in graph.nodes("Gather", "MatMul")}
    moved = sum(_move(model, pooled, place) for pooled, place in found.items() if place is not None)
    if moved:
        _sort(model)
    return moved


def _move(model: onnx.ModelProto, pooled: str, place: int) -> int:
    graph = Graph(model)
    pool = graph.producer[pooled]
    after = _only_for(graph, pool, pool.input[place])
    if not after:
        return 0
    made = {name for node in after for name in node.output}
    taken = {name: f"{name}_pooled" for node in after for name in node.input if name in graph.runtime - made}
    whole = pool.input[place]
    for name, own in taken.items():
        earlier = model.graph.node.add()
        earlier.CopyFrom(pool)
        earlier.name, earlier.input[place], earlier.output[0] = f"{pool.name}_{name}", name, own
    for node in after:
        node.input[:] = [taken.get(name, name) for name in node.input]
        if node.op_type == "LayerNormalization":
            _last_axis(node)
    for node in graph.consumers[pooled]:
        node.input[:] = [whole if name == pooled else name for name in node.input]
    model.graph.node.remove(pool)
    for value in [value for value in model.graph.value_info if value.name in made | {pooled}]:
        model.graph.value_info.remove(value)
    return len(after)


def _pooled(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Which input of a node it picks one token of; None where it does something else."""
    if node.output[0] in {value.name for value in graph.outputs}:
        return None
    if node.op_type == "Gather":
        index, shape = graph.constant(node.input[1]), graph.shape(node.input[0])
        one = index is not None and index.ndim == 0 and attribute(node, "axis", 0) == 1
        return 0 if one and shape is not None and len(shape) == 3 and shape[0] == 1 else None
    shape = graph.shape(node.output[0])
    if node.op_type != "MatMul" or shape is None or shape[:2] != (1, 1) or len(shape) != 3:
        return None
    one_hot = graph.maker(node.input[0], {"Cast", "Unsqueeze"})
    return 1 if one_hot is not None and one_hot.op_type == "Equal" else None


def _only_for(graph: Graph, pool: onnx.NodeProto, whole: str) -> list[onnx.NodeProto]:
    """The nodes before ``pool`` that act on each token of ``whole`` alone, and that nothing else needs."""
    tokens = graph.shape(whole)
    kept = {value.name for value in graph.outputs}
    found: list[onnx.NodeProto] = []
    needing = {pool.output[0]}
    for node in reversed(graph.every):
        takers = {taker.output[0] for taker in graph.consumers[node.output[0]]}
        alone = takers and takers <= needing and not kept.intersection(node.output)
        if alone and tokens is not None and _by_token(graph, node, tokens[1]):
            found.append(node)
            needing.add(node.output[0])
    return found


def _by_token(graph: Graph, node: onnx.NodeProto, length: Dim) -> bool:
    tokens = [name for name in node.input if name in graph.runtime]
    shapes = [graph.shape(name) for name in (*tokens, node.output[0])]
    if any(shape is None or len(shape) != 3 or shape[:2] != (1, length) for shape in shapes):
        return False
    constants = [graph.constant(name) for name in node.input if name and name not in graph.runtime]
    sizes = [None if constant is None else constant.ndim for constant in constants]
    if node.op_type == "MatMul":
        return node.input[0] == tokens[0] and sizes == [2]
    if node.op_type == "LayerNormalization":
        last = attribute(node, "axis", -1) in (-1, 2) and not any(node.output[1:])
        return last and tokens == [node.input[0]]
    known = node.op_type in _BETWEEN or (node.op_type in _ALONE and tokens == [node.input[0]])
    return known and all(size in (0, 1) for size in sizes)  # what is wider may differ from token to token


def _last_axis(node: onnx.NodeProto) -> None:
    for given in [given for given in node.attribute if given.name == "axis"]:
        given.i = -1


def _sort(model: onnx.ModelProto) -> None:
    """Put the nodes into an order in which each comes after what it takes."""
    from onnxscript import ir

    inner = ir.from_proto(model)
    inner.graph.sort()
    model.CopyFrom(ir.to_proto(inner))
