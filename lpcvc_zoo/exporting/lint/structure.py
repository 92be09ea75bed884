"""Rules about the shape of the network: branches, token counts, ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import isqrt

import onnx

from lpcvc_zoo.exporting.lint.graph import Graph, attribute, label
from lpcvc_zoo.exporting.lint.packed import packed
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject

MOST_AXES = 5
BLOCK, MOST_OVER = 8, 2  # tokens


def branches(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = []
    for add in graph.nodes("Add", "Sum"):
        sides = [side for name in add.input if (side := _branch(graph, name)) is not None]
        sources = {(source, stride) for source, stride, _ in sides}
        parallel = len(sides) == len(add.input) >= 2 and len(sources) == 1
        if parallel and any(convolves for *_, convolves in sides):
            nodes.append(label(add))
    if nodes:
        yield Hit("sums of parallel convolutions over the same input", tuple(nodes))


def _branch(graph: Graph, name: str) -> tuple[str, tuple[int, ...], bool] | None:
    """(input, strides, whether it convolves) of a convolution, a BatchNorm, or one after the other."""
    node = graph.producer.get(name)
    normed = node is not None and node.op_type == "BatchNormalization"
    if node is not None and normed:
        before = graph.producer.get(node.input[0])
        if before is None or before.op_type != "Conv":
            return node.input[0], (1, 1), False
        node = before
    if node is None or node.op_type != "Conv" or node.input[0] not in graph.runtime:
        return None
    return node.input[0], tuple(attribute(node, "strides", (1, 1))), True


def batch_norms(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = [
        label(node)
        for node in graph.nodes("BatchNormalization")
        if _made_by(graph, node.input[0], "Conv") and len(graph.consumers[node.input[0]]) == 1
    ]
    if nodes:
        yield Hit("BatchNormalization right after a convolution", tuple(nodes))


def _made_by(graph: Graph, name: str, kind: str) -> bool:
    node: onnx.NodeProto | None = graph.producer.get(name)
    return node is not None and node.op_type == kind


def tokens(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    found: dict[int, list[str]] = defaultdict(list)
    for node in graph.nodes("Softmax"):
        shape = graph.shape(node.output[0]) or ()
        if len(shape) >= 3 and isinstance(shape[-1], int) and shape[-1] == shape[-2] and _is_odd(shape[-1]):
            found[shape[-1]].append(label(node))
    if found and any(packed(subject)):
        for count, nodes in found.items():
            yield Hit(f"attention over {count} tokens, whose projection is packed", tuple(nodes))


def _is_odd(count: int) -> bool:
    """Prime, or just above a multiple of the block, as a class token makes it."""
    over = 0 < count % BLOCK <= MOST_OVER
    return count > BLOCK and (over or all(count % number for number in range(2, isqrt(count) + 1)))


def many_axes(subject: Subject) -> Iterator[Hit]:
    graph = subject.graph
    nodes = [
        label(node)
        for node in graph.nodes()
        if any(len(graph.shape(name) or ()) > MOST_AXES for name in node.output)
    ]
    if nodes:
        yield Hit(f"tensors of more than {MOST_AXES} axes", tuple(nodes))


RULES = (
    Rule(
        "unfused-branches", "warning",
        "Reparameterisable branches (MobileOne, RepVGG) were left in their training form: several times "
        "the work and the traffic for the same result.",
        "Build with fuse=True (the default), or call the model's own reparameterize before exporting.",
        branches,
    ),
    Rule(
        "unfused-batchnorm", "warning",
        "A BatchNorm after a convolution is a pass over memory that its weights could hold.",
        "Build with fuse=True (the default), or export in eval mode with constant folding.",
        batch_norms,
    ),
    Rule(
        "token-count", "info",
        f"A count that no block of {BLOCK} divides is padded, but that alone is no hazard: for 50, 197 and "
        "257 tokens it was seen to cost 1 to 5 % of a ViT's on-chip traffic. With a packed projection, which "
        "costs far more, 257 are known to have crashed one compiler version; in three none was seen to.",
        "Export with the rewrite split_attention or, where the checkpoint allows it, pool by average instead "
        "of a class token: the rewrite cls_to_average.",
        tokens,
    ),
    Rule(
        "many-axes", "warning",
        f"The NPU's tensors have {MOST_AXES} axes at most: a compiler must find two to merge, or refuse.",
        "Merge axes before the transpose, as the rewrite windows_4d does for attention in windows.",
        many_axes,
    ),
)  # fmt: skip
