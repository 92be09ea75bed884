"""Scales of weights that HTP v69 can multiply 16-bit values by.

An NPU turns what a convolution or a product adds up into steps of its result by one factor for each channel:
input scale times weight scale by output scale. In its emulator, and so presumably on the chip, v69 (XR2 Gen
2) keeps 11 bits of it, and multiplies the result's zero point by the error too: a channel is off by up to 16
of 65535 steps, everywhere by the same. Where the factor has no more bits, v69 is as near as v79, which keeps
more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lpcvc_zoo.exporting.lint.graph import Graph, is_wide

BITS = 11  # with 12 the error was seen to be there again


def fit_multipliers(path: Path) -> int:
    """Give each product by 8-bit weights in a QDQ file scales that fit; says how many were given some.

    The integers stay: a weight changes by 1/2048 at most, less than it is off by rounding to 8 bits.
    """
    model = onnx.load(path)
    graph, places = Graph(model), 0
    _share_scales(graph)
    for product in graph.nodes("Conv", "Gemm", "MatMul"):
        given, weight, *bias = (graph.producer.get(name) for name in product.input)
        takers = graph.takers(product.output[0])
        if given is None or weight is None or [taker.op_type for taker in takers] != ["QuantizeLinear"]:
            continue
        own = [weight, *bias]
        if any(node is None or not _is_stored(graph, node) for node in own) or not is_wide(graph, takers[0]):
            continue
        scales = [graph.constant(node.input[1]) for node in (given, weight, takers[0])]
        if given.op_type != "DequantizeLinear" or any(scale is None for scale in scales):
            continue
        before, old, after = (np.asarray(scale, np.float64) for scale in scales)
        new = _fitted(old * before / after) * after / before
        _store(graph, weight.input[1], new.astype(np.float32))
        for node in bias:
            assert node is not None
            stored = graph.constant(node.input[0])
            assert stored is not None
            steps = np.round(np.asarray(stored, np.float64) * (old / new))
            limits = np.iinfo(np.int32)  # where a channel has next to no weights, its bias reaches them
            _store(graph, node.input[0], steps.clip(limits.min, limits.max).astype(np.int32))
            _store(graph, node.input[1], (before * new).astype(np.float32))
        places += 1
    if places:
        onnx.save(model, path)
    return places


def _share_scales(graph: Graph) -> None:
    """Quantise what is for one concatenation alone as that quantises it, which spans it all.

    The compiler does so too, and would multiply by another factor than what the weights were fitted to.
    """
    for joined in graph.nodes("Concat"):
        takers = graph.takers(joined.output[0])
        if [taker.op_type for taker in takers] != ["QuantizeLinear"] or not is_wide(graph, takers[0]):
            continue
        for name in joined.input:
            given = graph.producer.get(name)
            made = graph.producer.get(given.input[0]) if given is not None else None
            pair = [node for node in (made, given) if node is not None]
            alone = all(len(graph.takers(node.output[0])) == 1 for node in pair)
            if alone and [node.op_type for node in pair] == ["QuantizeLinear", "DequantizeLinear"]:
                for node in pair:
                    node.input[1:] = takers[0].input[1:]


def _is_stored(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether integers of the file are dequantised for one node alone, by scales of the file."""
    return (
        node.op_type == "DequantizeLinear"
        and len(graph.takers(node.output[0])) == 1
        and all(name in graph.initializers and len(graph.consumers[name]) == 1 for name in node.input[:2])
    )


def _fitted(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest numbers of no more bits."""
    mantissa, exponent = np.frexp(factors)
    fitted: NDArray[np.float64] = np.ldexp(np.round(mantissa * 2**BITS) / 2**BITS, exponent)
    return fitted


def _store(graph: Graph, name: str, values: NDArray[Any]) -> None:
    graph.initializers[name].CopyFrom(numpy_helper.from_array(values, name))
