"""Rules about numbers: what fp16 and integers on an NPU can't hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

FP16_MAX = 65504.0
FP16_INVERTIBLE = 2.0**14  # the inverse of more is subnormal
FP16_TINY = 2.0**-25  # what is smaller rounds to 0 in fp16
_SHAPE_OPERATORS = {"Shape", "Size"}
# BatchNormalization's deviation is a constant, whose own size keeps it from 0.
_DIVIDES_BY_DEVIATION = ("InstanceNormalization", "LayerNormalization", "RMSNormalization")


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


def indivisible(subject: Subject) -> Iterator[Hit]:
    if subject.peaks is None:
        return
    graph, found = subject.graph, dict[str, float]()
    for node in graph.nodes("Div", "Reciprocal"):
        peak = subject.peaks.get(node.input[-1], 0)
        quantised = [taker.op_type for taker in graph.takers(node.output[0])] == ["QuantizeLinear"]
        if FP16_INVERTIBLE < peak <= FP16_MAX and not quantised:
            found[label(node)] = peak
    if found:
        yield Hit(f"divisors reach {max(found.values()):.5g} on real inputs", tuple(found))


def _float_constants(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in graph.constants():
        if value.dtype.kind == "f":
            yield name, value


def _takers(graph: Graph, name: str, bounds: bool = False) -> tuple[str, ...]:
    """The nodes that compute with a constant; with ``bounds`` also a Clip, which a far bound does no harm."""
    return tuple(label(node) for node in graph.takers(name) if bounds or node.op_type != "Clip")


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
        "fp16-overflow", "error",
        "An activation that fp16 can't hold becomes infinite, and NaN soon after.",
        "Scale the tensors down before the product and up after it, or keep that part in fp32 or w8a16.",
        overflow,
    ),
    Rule(
        "fp16-divisor", "error",
        "An NPU multiplies by the inverse, and that of more than 16384 is too small for it in fp16: the "
        "emulated one gives 0.",
        "Scale the divisor down, and what it divides as well: a mean instead of a sum.",
        indivisible,
    ),
)  # fmt: skip
