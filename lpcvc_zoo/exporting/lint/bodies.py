"""A graph with the bodies of its If, Loop and Scan nodes, which use values of the graph by their names."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        body
        for item in node.attribute
        if item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for body in (item.graphs or [item.g])
    ]


def branch(node: onnx.NodeProto, condition: bool) -> onnx.GraphProto:
    """The body of an If that such a condition chooses; an empty one where the file leaves it out."""
    wanted = "then_branch" if condition else "else_branch"
    body: onnx.GraphProto = next(
        (item.g for item in node.attribute if item.name == wanted), onnx.GraphProto()
    )
    return body


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, then all bodies in it, however deep."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_of(body)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes in an order in which they can run: those of a body before the node that it belongs to."""
    for node in graph.node:
        for body in bodies(node):
            yield from nodes_of(body)
        yield node


def taken(node: onnx.NodeProto) -> list[str]:
    """Names of what a node takes; of its bodies, what they hand to it."""
    return [*node.input, *(value.name for body in bodies(node) for value in body.output)]
