"""Scales of weights that HTP v69 can multiply 16-bit values by.

An NPU turns what a convolution or a product adds up into steps of its result by one factor for each channel:
input scale times weight scale by output scale. In its emulator, and so presumably on the chip, v69 (XR2 Gen
2) keeps 11 bits of it, and multiplies the result's zero point by the error too: a channel is off by up to 16
of 65535 steps, everywhere by the same. Where the factor has no more bits, v69 is as near as v79, which keeps
more.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lpcvc_zoo.exporting.lint.graph import Graph, is_wide

BITS = 11  # with 12 the error was seen to be there again
FLOAT = np.float32
EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
PRODUCTS = ("Conv", "Gemm", "MatMul")


def fit_multipliers(path: Path, clipped: Container[str] = ()) -> int:
    """Give each product by 8-bit weights in a QDQ file scales that fit; says how many were given some.

    The integers stay: a weight changes by 1/2048 at most, less than it is off by rounding to 8 bits.
    ``clipped``: values whose range is all that is left of a ReLU or Clip behind them, which must keep it.
    """
    model = onnx.load(path)
    graph, places = Graph(model), 0
    _share_scales(graph, clipped)
    for product in graph.nodes(*PRODUCTS):
        given, weight, *bias = (graph.producer.get(name) for name in product.input)
        takers = graph.takers(product.output[0])
        if given is None or weight is None or [taker.op_type for taker in takers] != ["QuantizeLinear"]:
            continue
        own = [weight, *bias]
        if any(node is None or not _is_stored(graph, node) for node in own) or not is_wide(graph, takers[0]):
            continue
        scales = [graph.constant(node.input[1]) for node in (given, *own, takers[0]) if node is not None]
        if given.op_type != "DequantizeLinear" or any(each is None or each.dtype != FLOAT for each in scales):
            continue
        before, old, *added, after = (np.asarray(scale, np.float64) for scale in scales)
        if graph.initializers[weight.input[0]].data_type not in EIGHT_BITS or not all(
            scale.shape == old.shape and np.allclose(scale, before * old, rtol=1e-4, atol=0)
            for scale in added
        ):
            continue
        new = _fitted(old * before / after) * after / before
        _store(graph, weight.input[1], new.astype(FLOAT))
        for node in bias:
            assert node is not None
            stored = graph.constant(node.input[0])
            assert stored is not None
            steps = np.round(np.asarray(stored, np.float64) * (old / new))
            limits = np.iinfo(np.int32)  # where a channel has next to no weights, its bias reaches them
            _store(graph, node.input[0], steps.clip(limits.min, limits.max).astype(np.int32))
            _store(graph, node.input[1], (before * new).astype(FLOAT))
        places += 1
    if places:
        onnx.save(model, path)
    return places


def _share_scales(graph: Graph, clipped: Container[str]) -> None:
    """Quantise a product for one concatenation alone as that quantises it, which spans it all.

    The compiler does so too, and would multiply by another factor than what the weights were fitted to.
    """
    for joined in graph.nodes("Concat"):
        takers = graph.takers(joined.output[0])
        if [taker.op_type for taker in takers] != ["QuantizeLinear"] or not is_wide(graph, takers[0]):
            continue
        for name in joined.input:
            nodes = _behind(graph, name, ("DequantizeLinear",), ("QuantizeLinear",), PRODUCTS)
            if nodes and nodes[1].input[0] not in clipped:
                for node in nodes[:2]:
                    node.input[1:] = takers[0].input[1:]


def _behind(graph: Graph, name: str, *kinds: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes that make a value one after the other, the last first, of these types and for it alone."""
    found: list[onnx.NodeProto] = []
    for kind in kinds:
        node = graph.producer.get(name)
        if node is None or node.op_type not in kind or len(graph.takers(name)) != 1:
            return []
        found.append(node)
        name = node.input[0]
    return found


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
