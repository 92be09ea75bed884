"""Rules about numbers: what fp16 and integers on an NPU can't hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

FP16_MAX = 65504.0
FP16_TINY = 2.0**-25  # what is smaller rounds to 0 in fp16
_SHAPE_OPERATORS = {"Shape", "Size"}
# BatchNormalization's deviation is a constant, whose own size keeps it from 0.
_DIVIDES_BY_DEVIATION = ("InstanceNormalization", "LayerNormalization", "RMSNormalization")
NARROW_WRONG_ON = 69  # HTP
# Where the compiler for HTP v69 was seen to get products of 16 bits right: by rows, in steps; by columns.
MANY_ROWS, FEWEST_ROWS, ROW_STEP, MOST_COLUMNS = 32, 8, 4, 32


def infinite(subject: Subject) -> Iterator[Hit]:
    for name, value in _float_constants(subject.graph):
        bad, unknown = int(np.size(value) - np.isfinite(value).sum()), bool(np.isnan(value).any())
        takers = _takers(subject.graph, name, bounds=unknown)
        if bad and takers:
            yield Hit(f"constant {name} holds {bad} {'NaN' if unknown else 'infinite'} values", takers)


def beyond_fp16(subject: Subject) -> Iterator[Hit]:
    for name, value in _float_constants(subject.graph):
        takers = _takers(subject.graph, name)
        finite = np.abs(value[np.isfinite(value)])
        if takers and finite.size and finite.max() > FP16_MAX:
            yield Hit(f"constant {name} reaches {finite.max():.3g}; fp16 ends at 65504", takers)


def vanishing(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    for name, value in _float_constants(graph):
        if value.size != 1 or not 0 < abs(value.item()) < FP16_TINY:
            continue
        takers = tuple(label(node) for node in graph.takers(name) if node.op_type in ("Add", "Max", "Clip"))
        if takers:
            yield Hit(f"constant {name} = {value.item():.3g} is 0 in fp16", takers)
    for node in graph.nodes(*_DIVIDES_BY_DEVIATION):
        if 0 < (epsilon := attribute(node, "epsilon", 1e-5)) < FP16_TINY:
            yield Hit(f"epsilon = {epsilon:.3g} is 0 in fp16", (label(node),))


def wide_integers(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = [
        label(node)
        for node in graph.nodes()
        if node.op_type not in _SHAPE_OPERATORS and any(graph.dtype(name) == np.int64 for name in node.output)
    ]
    if nodes:
        yield Hit("int64 values are computed at run time", tuple(nodes))


def doubles(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = [label(node) for node in graph.nodes() if any(graph.dtype(o) == np.float64 for o in node.output)]
    if nodes:
        yield Hit("float64 values are computed at run time", tuple(nodes))


def overflow(subject: Subject) -> Iterator[Hit]:
    if subject.peaks is None:
        return
    graph = subject.graph
    found: dict[str, float] = {}
    for name, peak in subject.peaks.items():
        takers = graph.consumers.get(name, [])
        saturates = bool(takers) and all(node.op_type == "Clip" for node in takers)  # infinity is cut as well
        if not (peak <= FP16_MAX or (saturates and np.isfinite(peak))):
            found[label(graph.producer[name])] = peak
    if found:
        worst = max(found.values(), key=lambda peak: np.inf if np.isnan(peak) else peak)
        yield Hit(f"activations reach {worst:.3g} on real inputs; fp16 ends at 65504", tuple(found))


def _float_constants(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in graph.constants():
        if value.dtype.kind == "f":
            yield name, value


def _takers(graph: Graph, name: str, bounds: bool = False) -> tuple[str, ...]:
    """The nodes that compute with a constant; with ``bounds`` also a Clip, which a far bound does no harm."""
    return tuple(label(node) for node in graph.takers(name) if bounds or node.op_type != "Clip")


def clipped_padding(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    for node in graph.nodes("Pad"):
        number = graph.constant(node.input[2]) if len(node.input) > 2 else np.float32(0)
        known = _range(graph, node.input[0])
        if number is None or known is None:
            continue
        value, (low, high, step) = float(number.item()), known
        if not low - step <= value <= high + step:
            message = f"quantised to {low:.3g} .. {high:.3g}, and padded with {value:.3g}"
            yield Hit(message, (label(node),))


def _range(graph: Graph, name: str) -> tuple[float, float, float] | None:
    """Least and greatest value, and the step, of what was quantised as a whole; None for anything else."""
    made = graph.producer.get(name)
    if made is None or made.op_type != "DequantizeLinear" or len(made.input) < 3:
        return None
    scale, zero = graph.constant(made.input[1]), graph.constant(made.input[2])
    if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
        return None
    step, limits = float(scale.item()), np.iinfo(str(zero.dtype))
    return (limits.min - int(zero.item())) * step, (limits.max - int(zero.item())) * step, step


def narrow_product(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    if subject.htp_arch is not None and subject.htp_arch > NARROW_WRONG_ON:
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
    zero = graph.constant(made.input[2]) if len(made.input) > 2 else None
    return zero is not None and zero.dtype.itemsize == 2


RULES = (
    Rule(
        "infinite-constant", "error",
        "In fp16 an infinite mask gives NaN as soon as a row is all masked, and a quantiser that must span"
        " it has no steps left for real values; the compiler refuses such an addition in a quantised "
        "graph.",
        "Use a finite mask such as -50: the rewrite finite_masks puts it in.",
        infinite,
    ),
    Rule(
        "fp16-constant", "warning",
        "An NPU computes floats in fp16: this constant becomes infinite there.",
        "Use a smaller one; -50 masks an attention weight as well as -3e38 does.",
        beyond_fp16,
    ),
    Rule(
        "fp16-epsilon", "info",
        "An epsilon that is 0 in fp16 no longer keeps a division from 0 / 0.",
        "Use 1e-6 or more where the checkpoint allows it, and check the output on the device.",
        vanishing,
    ),
    Rule(
        "int64-path", "warning",
        "NPUs have no 64-bit integers: casts are put in, or the nodes run on the CPU.",
        "Keep ids and indices int32 from the input on.",
        wide_integers,
    ),
    Rule(
        "float64", "error",
        "No NPU has float64.",
        "Export in float32; look for numpy scalars and Python floats in the model's code.",
        doubles,
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
        "fp16-overflow", "error",
        "An activation that fp16 can't hold becomes infinite, and NaN soon after.",
        "Scale the tensors down before the product and up after it, or keep that part in fp32 or w8a16.",
        overflow,
    ),
)  # fmt: skip
