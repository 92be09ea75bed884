"""The rule about packed attention: queries, keys and values cut out of one product."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

_CUTS = ("Split", "Slice")
_LAYOUT = {
    "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_BIASED = _LAYOUT | {"Add"}
_SCALED = _LAYOUT | {"Div", "LayerNormalization", "Mul"}
_MASKED = _LAYOUT | {"Add", "Div", "Mul", "Sub"}


def packed(subject: Subject) -> Iterator[Hit]:
    nodes = dict.fromkeys(label(node) for node in (*_picks(subject.graph), *_cuts(subject.graph)))
    if nodes:
        yield Hit("queries, keys and values are picked out of one packed tensor", tuple(nodes))


def _picks(graph: Graph) -> Iterator[onnx.NodeProto]:
    """Gathers of one out of three, whatever becomes of it."""
    for node in graph.nodes("Gather"):
        index, shape = graph.constant(node.input[1]), graph.shape(node.input[0])
        if node.input[0] not in graph.runtime or index is None or index.ndim or shape is None:
            continue
        if shape[attribute(node, "axis", 0)] == 3 and len(shape) >= 4:
            yield node


def _cuts(graph: Graph) -> Iterator[onnx.NodeProto]:
    """A Split, or Slices, of what one matrix projects, where two parts are multiplied into a softmax."""
    for softmax in graph.nodes("Softmax"):
        product = graph.maker(softmax.input[0], _MASKED)
        if product is None or product.op_type != "MatMul":
            continue
        parts = [graph.maker(name, _SCALED) for name in product.input]
        wholes = [part.input[0] for part in parts if part is not None and part.op_type in _CUTS]
        if len(wholes) < 2 or len(set(wholes)) > 1:
            continue
        projection = graph.maker(wholes[0], _BIASED)
        if projection is not None and projection.op_type in ("Gemm", "MatMul"):
            yield from (node for node in graph.consumers[wholes[0]] if node.op_type in _CUTS)


RULES = (
    Rule(
        "packed-qkv", "info",
        "Splitting one packed product takes a 5-D transpose and three Gathers, or a Split or Slices: memory "
        "traffic for nothing.",
        "Export with the rewrite split_attention, which has three projections and 4-D products.",
        packed,
    ),
)  # fmt: skip
