"""Rules about what Qualcomm's compiler takes, and computes something else for.

Each was found by emulating what it made, beside ONNX Runtime, and cut down to a small graph that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, is_wide, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

LAST_WRONG = 69  # the HTP after which 16-bit products and convolutions were seen right
# Where the compiler for HTP v69 was seen to get products of 16 bits right: by rows, in steps; by columns.
MANY_ROWS, FEWEST_ROWS, ROW_STEP, MOST_COLUMNS = 32, 8, 4, 32
PARTS = 3  # queries, keys and values
SIXTH, NEAR = 1 / 6, 1e-5
Range = tuple[float, float, float]  # the least and the greatest value, and the step
_LAYOUT = {"DequantizeLinear", "Identity", "QuantizeLinear", "Reshape"}


def clipped_padding(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    for node in graph.nodes("Pad"):
        if attribute(node, "mode", "constant") != "constant":
            continue  # pads with what is in range
        given = node.input[2] if len(node.input) > 2 else ""
        number = graph.constant(given) if given else np.float32(0)
        known = _range(graph, node.input[0])
        if number is None or known is None:
            continue
        value, (low, high, _) = float(number.item()), known
        if _is_narrower(known, (value, value, 0)):
            message = f"quantised to {low:.3g} .. {high:.3g}, and padded with {value:.3g}"
            yield Hit(message, (label(node),))


def clipped_transpose(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = [
        label(node)
        for node in graph.nodes("Transpose")
        for quantised in graph.takers(node.output[0])
        for made in graph.takers(quantised.output[0])
        if any(taker.op_type == "Conv" for taker in graph.takers(made.output[0]))
        and _is_narrower(_range(graph, made.output[0]), _range(graph, node.input[0]))
    ]
    if nodes:
        yield Hit("transposed, quantised to a narrower range and convolved", tuple(nodes))


def _is_narrower(known: Range | None, before: Range | None) -> bool:
    if known is None or before is None:
        return False
    low, high, step = known
    return before[0] < low - step or before[1] > high + step


def _range(graph: Graph, name: str) -> Range | None:
    """Of what was quantised as a whole; None for anything else."""
    made = graph.producer.get(name)
    if made is None or made.op_type != "DequantizeLinear" or len(made.input) < 3:
        return None
    scale, zero = graph.constant(made.input[1]), graph.constant(made.input[2])
    if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
        return None
    step, limits = float(scale.item()), np.iinfo(str(zero.dtype))
    return (limits.min - int(zero.item())) * step, (limits.max - int(zero.item())) * step, step


def _may_be_wrong_on(htp_arch: int | None) -> bool:
    return htp_arch is None or htp_arch <= LAST_WRONG


def narrow_product(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    if not _may_be_wrong_on(subject.htp_arch):
        return
    nodes = []
    for node in graph.nodes("MatMul"):
        left, right = (graph.producer.get(name) for name in node.input)
        if not (_wide_integers_of(graph, left) and _wide_integers_of(graph, right)):
            continue
        shape = graph.shape(node.output[0]) or ()
        if len(shape) < 3 or not all(isinstance(size, int) for size in shape):
            continue
        *batch, rows, columns = (int(size) for size in shape if size is not None)
        odd = rows < FEWEST_ROWS or (rows < MANY_ROWS and rows % ROW_STEP)
        if odd and columns > MOST_COLUMNS and np.prod(batch) > 1:
            nodes.append(label(node))
    if nodes:
        yield Hit("products of 16-bit matrices with few rows, more than one at once", tuple(nodes))


def _wide_integers_of(graph: Graph, made: onnx.NodeProto | None) -> bool:
    """Whether a value is computed at run time and was quantised to 16 bits."""
    if made is None or made.op_type != "DequantizeLinear" or made.input[0] not in graph.runtime:
        return False
    return is_wide(graph, made)


def split_windows(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    if not _may_be_wrong_on(subject.htp_arch):
        return
    nodes = [
        label(node)
        for node in graph.nodes("Conv")
        if _wide_integers_of(graph, graph.producer.get(node.input[0]))
        and (shape := graph.shape(node.output[0]))
        and isinstance(shape[0], int)
        and shape[0] > 1
        and _parts(graph, node.output[0], shape[1]) >= PARTS
    ]
    if nodes:
        yield Hit("16-bit convolutions of several windows at once, whose channels are split", tuple(nodes))


def _parts(graph: Graph, name: str, channels: object) -> int:
    """How many parts a value's channels are cut into, which stay where they are until then."""
    shape = graph.shape(name) or ()
    if len(shape) < 2:
        return 0
    found = 0
    for node in graph.consumers.get(name, []):
        if node.op_type in _LAYOUT:
            found += _parts(graph, node.output[0], channels)
        elif node.op_type in ("Split", "Slice") and shape[1] == channels:
            parts = [graph.shape(part) or () for part in node.output]
            found += sum(part != shape and (part[:1], part[2:]) == (shape[:1], shape[2:]) for part in parts)
    return found


def swish_pair(subject: Subject) -> Iterator[Hit]:
    if nodes := [label(node) for node in swish_pairs(subject.graph)]:
        yield Hit("x HardSigmoid(x) in float, with x in the first place", tuple(nodes))


def swish_pairs(graph: Graph) -> Iterator[onnx.NodeProto]:
    """Each Mul in float of x, in the first place, by the HardSigmoid of x that makes a hard swish of it."""
    for node in graph.nodes("Mul"):
        x, gate = node.input[0], graph.producer.get(node.input[1])
        if gate is None or gate.op_type != "HardSigmoid" or gate.input[0] != x:
            continue
        swish = abs(attribute(gate, "alpha", 0.2) - SIXTH) < NEAR and attribute(gate, "beta", 0.5) == 0.5
        made = graph.producer.get(x)
        if swish and (made is None or made.op_type != "DequantizeLinear"):
            yield node


RULES = (
    Rule(
        "clipped-transpose", "error",
        "What a Transpose gives is not clipped on the NPU where its range is narrower than that of what it "
        "takes, if a convolution with a scale for each channel takes it: for every NPU tried, without a "
        "word. A ReLU that quantising made part of that range is lost.",
        "Put the ReLU before the Transpose, as quantize does.",
        clipped_transpose,
    ),
    Rule(
        "clipped-padding", "error",
        "What is padded and the padding share one range on the NPU, that of what is padded: a value beyond "
        "it is clipped, without a word, while ONNX Runtime computes the right one.",
        "Do without the padding: the rewrite linear_attention does for EfficientViT's linear attention. Or "
        "concatenate a constant.",
        clipped_padding,
    ),
    Rule(
        "narrow-product", "error",
        "Of 16-bit products that are computed several at once, the compiler for HTP v69 (XR2 Gen 2, "
        "Snapdragon 8 Gen 1) gets all but the first wrong, without a word, where they have over "
        f"{MOST_COLUMNS} columns and less than {MANY_ROWS} rows, in no multiple of {ROW_STEP} or less than "
        f"{FEWEST_ROWS}. For v73 and newer they are right.",
        "Multiply and add up instead, as the rewrites split_attention and linear_attention do for one row; "
        f"give a cut text a length that divides by {ROW_STEP}; or leave the product in float or 8 bits.",
        narrow_product,
    ),
    Rule(
        "split-windows", "error",
        "Of convolutions over several windows at once, the compiler for HTP v69 (XR2 Gen 2, Snapdragon 8 Gen "
        "1) was seen to fill the last channels of one window with constants, in w8a16, where the channels "
        "are split into queries, keys and values: the worst cosine of trained EfficientViT-M0 fell from "
        "0.9997 to 0.986, that of M5 to 0.79. It took several of them in one graph; for v79 they were right.",
        "Convolve before the windows are cut out: the rewrite windows_4d does that for MSRA-EfficientViT.",
        split_windows,
    ),
    Rule(
        "hard-swish-pair", "error",
        "The compiler takes the pair in fp16 and computes x² HardSigmoid(x), for every NPU tried. It says "
        "that the HardSigmoid is not supported, and compiles.",
        "Put the HardSigmoid in the first place of the Mul, or write HardSwish; quantize does the first.",
        swish_pair,
    ),
)  # fmt: skip
