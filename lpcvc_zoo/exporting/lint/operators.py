"""Rules about single operators: what the NPU has none of, what it runs badly, what it runs elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import gcd

import numpy as np
import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject
from lpcvc_zoo.exporting.lint.shapes import CONTRIBUTED, Dim

# What ONNX Runtime's QNN provider 2.7 has a translation for (its op_builder_factory.cc and release notes),
# without Einsum and Erf, which the compiler for HTP v69 was seen to refuse when they stand alone.
SUPPORTED = frozenset(
    """
    Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv
    ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Elu Equal Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    HardSigmoid HardSwish Identity InstanceNormalization LRN LSTM GRU LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean Min Mod Mul Neg Not OneHot
    Or PRelu Pad Pow QuantizeLinear RMSNormalization Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Selu Sigmoid Sign Sin Slice
    Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh ThresholdedRelu Tile TopK Transpose
    Unsqueeze Upsample Where Xor
    """.split()
)
DOMAINS = {"", "ai.onnx"}
SUPPORTED_OWN = {CONTRIBUTED: {"Gelu", "FusedMatMul", "QuantizeLinear", "DequantizeLinear"}}
SEARCHES = ("ArgMax", "ArgMin", "TopK", "CumSum")
SCATTERED = ("GatherND", "GatherElements", "ScatterND", "ScatterElements")
PIXEL_MODES = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}


def unsupported(subject: Subject) -> Iterator[Hit]:
    found: dict[str, list[str]] = defaultdict(list)
    for node in subject.graph.nodes():
        if node.op_type == "Erf":
            continue  # a rule of its own
        if node.op_type == "If" and subject.graph.constant(node.input[0]) is not None:
            continue  # the compiler puts one of its bodies in its place
        if node.domain in DOMAINS and node.op_type in SUPPORTED:
            continue
        if node.op_type in SUPPORTED_OWN.get(node.domain, ()):
            continue
        kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        found[kind].append(label(node))
    for kind, nodes in sorted(found.items()):
        yield Hit(f"{kind} has no translation for the NPU", tuple(nodes))


def erf(subject: Subject) -> Iterator[Hit]:
    alone: list[str] = []
    other: list[str] = []
    for node in subject.graph.nodes("Erf"):
        constants = _gelu_constants(subject.graph, node)
        if constants is None:
            alone.append(label(node))
        elif not np.allclose(constants, (0.5**0.5, 1.0, 0.5), rtol=1e-3):
            other.append(label(node))
    if alone:
        yield Hit("Erf outside a GELU, which the compiler refuses", tuple(alone))
    if other:
        yield Hit(
            "a GELU's five nodes with other constants, which the compiler takes for a GELU", tuple(other)
        )


def _gelu_constants(graph: Graph, erf: onnx.NodeProto) -> tuple[float, float, float] | None:
    """a, b and c of ``c x (b + erf(a x))``, multiplied in any order; None for any other form."""
    scale, add = graph.producer.get(erf.input[0]), _only_consumer(graph, erf, "Add")
    if scale is None or scale.op_type not in ("Mul", "Div") or add is None:
        return None
    a, x = _constant_and_other(graph, scale)
    b, _ = _constant_and_other(graph, add)
    c = _factor_beside(graph, add, x)
    if not a or b is None or c is None:
        return None
    return (1 / a if scale.op_type == "Div" else a), b, c


def _factor_beside(graph: Graph, add: onnx.NodeProto, x: str | None) -> float | None:
    """The constant c where the sum is multiplied by c and by x, before or after or as their product."""
    first = _only_consumer(graph, add, "Mul")
    if first is None:
        return None
    other = next((name for name in first.input if name != add.output[0]), None)
    last, made = _only_consumer(graph, first, "Mul"), graph.producer.get(other or "")
    c = None
    if other == x and last is not None:
        c, _ = _constant_and_other(graph, last)
    elif last is not None and x in last.input:
        c, _ = _constant_and_other(graph, first)
    elif made is not None and made.op_type == "Mul" and x in made.input:
        c, _ = _constant_and_other(graph, made)
    return c


def _only_consumer(graph: Graph, node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
    takers = graph.consumers[node.output[0]]
    return takers[0] if len(takers) == 1 and takers[0].op_type == kind else None


def _constant_and_other(graph: Graph, node: onnx.NodeProto) -> tuple[float | None, str | None]:
    """The one number among a node's two inputs, and the name of the other input."""
    for name, other in (tuple(node.input), tuple(node.input)[::-1]):
        value = graph.constant(name)
        if value is not None and value.size == 1:
            return float(value.item()), other
    return None, None


def searches(subject: Subject) -> Iterator[Hit]:
    for kind in SEARCHES:
        if nodes := tuple(label(node) for node in subject.graph.nodes(kind)):
            yield Hit(f"{kind} over a runtime value", nodes)


def scattered(subject: Subject) -> Iterator[Hit]:
    for kind in SCATTERED:
        if nodes := tuple(label(node) for node in subject.graph.nodes(kind)):
            yield Hit(f"{kind}: reads or writes at computed places", nodes)


def where(subject: Subject) -> Iterator[Hit]:
    if nodes := tuple(label(node) for node in subject.graph.nodes("Where")):
        yield Hit("Where chooses between values", nodes)


def resizes(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    for node in graph.nodes("Resize"):
        mode, place = (
            attribute(node, "mode", "nearest"),
            attribute(node, "coordinate_transformation_mode", "half_pixel"),
        )
        if mode == "cubic" or attribute(node, "antialias", 0):
            kind = f"{mode}{', antialiased' if attribute(node, 'antialias', 0) else ''}"
            yield Hit(
                f"Resize ({kind}): the NPU has nearest and plain bilinear only", (label(node),), "error"
            )
        elif place not in PIXEL_MODES:
            yield Hit(f"Resize with pixel positions {place!r}", (label(node),))
        elif any(graph.constant(name) is None for name in node.input[1:] if name in graph.runtime):
            yield Hit("Resize to a size that is computed at run time", (label(node),), "error")
        elif mode == "nearest" and (why := _rounds_otherwise(graph, node, place)):
            yield Hit(f"Resize (nearest) with pixel positions {place!r} {why}", (label(node),))
    if nodes := tuple(label(node) for node in graph.nodes("Upsample")):
        yield Hit("Upsample, which ONNX has no more since opset 10", nodes)


def _rounds_otherwise(graph: Graph, node: onnx.NodeProto, place: str) -> str | None:
    """How the NPU was seen to round where a nearest Resize asks for something else; None where it agrees."""
    asked = attribute(node, "nearest_mode", "round_prefer_floor")
    if place == "asymmetric":
        return None if asked == "floor" else f"is refused, or rounded down: nearest_mode is {asked!r}"
    if asked in ("floor", "ceil"):
        return f"is rounded to the nearest: nearest_mode is {asked!r}"
    sizes = zip(graph.shape(node.input[0]) or (), graph.shape(node.output[0]) or (), strict=False)
    if asked == "round_prefer_floor" and any(_meets_halves(place, *pair) for pair in sizes):
        return "meets halves, which are rounded up: nearest_mode is 'round_prefer_floor'"
    return None


def _meets_halves(place: str, before: Dim, after: Dim) -> bool:
    """Whether a pixel of the output lies just between two of the input, along one axis."""
    if not (isinstance(before, int) and isinstance(after, int)) or before == after:
        return False
    if place == "align_corners":
        return after > 1 and (after - 1) // gcd(before - 1, after - 1) % 2 == 0
    return place == "half_pixel" and before // gcd(before, after) % 2 == 0


RULES = (
    Rule(
        "unsupported-operator", "error",
        "The graph is refused, or cut in two and partly run on the CPU with a copy each way.",
        "Write it with MatMul, Mul and other plain operators, or fold it away: Shape and friends disappear"
        " when all dimensions are static and constants are folded.",
        unsupported,
    ),
    Rule(
        "erf", "error",
        "Erf has no NPU instruction. Qualcomm's compiler knows an exact GELU by its five nodes and runs one "
        "operator. Where that pattern is broken, Erf is refused; with other constants in it, the result is "
        "a GELU all the same, silently wrong.",
        "Write the exact GELU, 0.5 x (1 + erf(x / sqrt 2)), or another function: the rewrites gelu_sigmoid "
        "and gelu_tanh change one into the other.",
        erf,
    ),
    Rule(
        "search", "warning",
        "Searching along an axis runs serially, and its int64 result forces integer paths after it. ArgMax"
        " over ids is how CLIP finds the end-of-text token; it also assumes that token has the largest id.",
        "Multiply by a one-hot mask instead: (ids == eot) @ hidden.",
        searches,
    ),
    Rule(
        "scattered-access", "warning",
        "Addresses computed at run time defeat the NPU's block transfers; several compilers put these on "
        "the CPU.",
        "Multiply by a one-hot mask, or slice at constant places.",
        scattered,
    ),
    Rule(
        "where", "warning",
        "A select needs a boolean tensor of the full shape and a pass of its own; masks made so are often "
        "-inf.",
        "Add a finite mask, or multiply by 0 and 1.",
        where,
    ),
    Rule(
        "resize", "warning",
        "The NPU resizes with nearest or plain bilinear at four pixel conventions, and nearest rounds in one "
        "way at each. Anything else is refused or, worse, silently sampled another way than in training.",
        "Resize by two products with constant matrices, as the zoo's in-graph preprocessing does. For "
        "nearest: 'asymmetric' with 'floor', which is torch's, or 'half_pixel' with 'round_prefer_ceil'.",
        resizes,
    ),
)  # fmt: skip
