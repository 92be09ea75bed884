"""What a quantised tower computes in integers on the NPU, and what is left in fp16, node by node."""

from __future__ import annotations

from pathlib import Path

import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, label, load_graph
from lpcvc_zoo.targets.base import FP16, OperatorTime

INTEGER = "NPU, integer"
_BETWEEN = ("QuantizeLinear", "DequantizeLinear")


def arithmetic_of(path: Path) -> tuple[OperatorTime, ...] | None:
    """The nodes of a QDQ graph that compute floats, in its order; None where nothing is quantised."""
    graph = load_graph(path)
    if not any(graph.nodes("QuantizeLinear")):
        return None
    return tuple(
        OperatorTime(name=label(node), type=node.op_type, unit=INTEGER if _is_between(graph, node) else FP16)
        for node in graph.nodes()
        if node.op_type not in _BETWEEN and _computes_floats(graph, node)
    )


def _is_between(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether all that a node takes was dequantised for it, and all that it makes is quantised at once."""
    made_by = [graph.producer.get(name) for name in node.input if name in graph.runtime]
    taken_by = [taker for name in node.output for taker in graph.consumers[name]]
    dequantised = all(maker is not None and maker.op_type == "DequantizeLinear" for maker in made_by)
    return dequantised and bool(taken_by) and all(taker.op_type == "QuantizeLinear" for taker in taken_by)


def _computes_floats(graph: Graph, node: onnx.NodeProto) -> bool:
    return any((dtype := graph.dtype(name)) is not None and dtype.kind == "f" for name in node.output)
