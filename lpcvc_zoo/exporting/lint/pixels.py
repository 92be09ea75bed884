"""The rule about pixels: do they reach the first weights normalised, or as the host gives them?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Array

Range = tuple[float, float]
HIGHS = (1.0, 255.0)  # the largest pixel of a host that no contract describes
_KEEP_THE_RANGE = set(
    "Reshape Transpose Squeeze Unsqueeze Flatten Cast Clip Slice Split Gather Pad Resize Upsample Concat "
    "Identity QuantizeLinear DequantizeLinear AveragePool SpaceToDepth".split()
)


def raw_pixels(subject: Subject) -> Iterator[Hit]:
    if subject.tower != "image" or subject.plain_pixels:
        return
    highs = (subject.contract.image.high,) if subject.contract else HIGHS
    found: dict[str, dict[float, Range]] = defaultdict(dict)
    for high in highs:
        for node, range_ in _first_weights(subject.graph, high):
            found[node][high] = range_
    raw: dict[str, list[str]] = defaultdict(list)
    for node, ranges in found.items():
        if not any(_is_normalised(range_, high) for high, range_ in ranges.items()):
            raw[_message(ranges)].append(node)
    for message, nodes in raw.items():
        yield Hit(message, tuple(nodes))


def _is_normalised(range_: Range, high: float) -> bool:
    """Around 0, whatever the mean and std; or, where the host gives more, from 0 to 1."""
    low, top = range_
    around_zero = low < 0 < top and min(-low, top) > max(-low, top) / 10
    return around_zero or (high > 1 and low == 0 and 0.5 <= top <= 1.01)


def _message(ranges: dict[float, Range]) -> str:
    given = " or ".join(f"0 to {high:g}" for high in ranges)
    if all(range_ == (0, high) for high, range_ in ranges.items()):
        return f"pixels as the host gives them ({given}) go straight into the first weights"
    reached = " or ".join(f"{low:.3g} to {top:.3g}" for low, top in ranges.values())
    return f"pixels that the host gives as {given} reach the first weights as {reached}"


def _first_weights(graph: Graph, high: float) -> Iterator[tuple[str, Range]]:
    """The nodes whose weights pixels from 0 to ``high`` meet first, and the range that they have there.

    Arithmetic with constants is followed, also as a convolution of each pixel's channels apart, and
    averaging: a resize. What else computes anything ends it.
    """
    waiting, seen = [(graph.inputs[0].name, (0.0, high))], set[str]()
    while waiting:
        name, range_ = waiting.pop()
        for node in graph.consumers[name]:
            if _weighs(graph, node, name):
                yield label(node), range_
            elif (left := _after(graph, node, name, range_)) and not seen.intersection(node.output):
                seen.update(node.output)
                waiting += [(output, left) for output in node.output]


def _weighs(graph: Graph, node: onnx.NodeProto, name: str) -> bool:
    """Whether a node has weights for a value, and not a constant matrix that only averages it."""
    first = node.input[0] == name
    if node.op_type != "MatMul":
        return first and node.op_type in ("Conv", "Gemm") and _affine(graph, node) is None
    matrix = graph.constant(node.input[1] if first else node.input[0])
    if matrix is None:
        return False
    sums = matrix.sum(axis=-2 if first and matrix.ndim > 1 else -1)
    return not np.allclose(sums, 1, atol=1e-2)


def _affine(graph: Graph, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """What a convolution multiplies one channel by for each it makes, and adds; None for any other."""
    weights = graph.constant(node.input[1]) if node.op_type == "Conv" else None
    if weights is None or weights.ndim < 3 or any(size != 1 for size in weights.shape[2:]):
        return None
    matrix = weights.reshape(weights.shape[:2])
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if bias is None or (np.count_nonzero(matrix, axis=1) != 1).any():
        return None
    return matrix.sum(axis=1), bias


def _after(graph: Graph, node: onnx.NodeProto, name: str, range_: Range) -> Range | None:
    """The range after a node that weighs nothing; None where that is not known."""
    if node.op_type in _KEEP_THE_RANGE and node.input[0] == name:
        return range_
    if node.op_type == "Relu":
        return max(range_[0], 0.0), max(range_[1], 0.0)
    if node.op_type == "Conv" and (by_channel := _affine(graph, node)) is not None:
        scale, bias = by_channel
        return _reached(np.array(range_)[:, None] * scale + bias)
    if node.op_type == "MatMul":
        other = node.input[1] if node.input[0] == name else node.input[0]
        averages = other in graph.runtime or graph.constant(other) is not None
        return range_ if averages else None
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(set(node.input)) < 2:
        return None
    first = node.input[0] == name
    number = graph.constant(node.input[1] if first else node.input[0])
    if number is None or (node.op_type == "Div" and not first):
        return None
    ends = np.array(range_)[:, None]
    operands = (ends, number.ravel()) if first else (number.ravel(), ends)
    compute = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[node.op_type]
    return _reached(compute(*operands))


def _reached(results: Array) -> Range:
    return float(results.min()), float(results.max())


RULES = (
    Rule(
        "missing-normalisation", "warning",
        "The host sends raw RGB. Without scale, mean and std in the graph the tower sees pixels it was not"
        " trained on: recall drops and nothing fails.",
        "Fold (pixel / high - mean) / std into the graph: build(...) under a contract does. A model that was "
        "trained on pixels as they come is linted with --plain-pixels.",
        raw_pixels,
    ),
)  # fmt: skip
