"""Rules about what crosses the boundary: files, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from lpcvc_zoo.contract import CONTRACTS, Contract, Tower
from lpcvc_zoo.exporting.lint.graph import Graph, label
from lpcvc_zoo.exporting.lint.rule import Hit, Rule, Subject
from lpcvc_zoo.exporting.lint.shapes import dimensions

MOST_BYTES = 2**31 - 1
# Operators whose first input decides how large their output is; for others, integers after it may.
_SIZED_BY_FIRST = {"ConstantOfShape", "If", "Loop", "NonMaxSuppression", "NonZero", "Range", "Unique"}


def guess_tower(graph: Graph) -> Tower | None:
    """The tower that a graph with one input looks like: four axes, also of bytes, or else integers."""
    if len(graph.inputs) != 1:
        return None
    dtype = graph.dtype(graph.inputs[0].name)
    if dtype is None:
        return None
    if len(dimensions(graph.inputs[0])) == 4:
        return "image"
    return "text" if dtype.kind in "iu" else None


def guess_contract(graph: Graph, tower: Tower | None) -> Contract | None:
    """The named contract whose input has this graph's shape; None where none has."""
    for contract in CONTRACTS.values():
        shapes = {"image": contract.image.shape(1), "text": contract.text.shape(1)}
        if tower is not None and dimensions(graph.inputs[0]) == shapes[tower]:
            return contract
    return None


def dynamic(subject: Subject) -> Iterator[Hit]:
    for value in (*subject.graph.inputs, *subject.graph.outputs):
        shape = dimensions(value)
        sized = all(isinstance(dim, int) and dim > 0 for dim in shape)  # some write an open size as 0
        if not (value.type.tensor_type.HasField("shape") and sized):
            yield Hit(f"{value.name} has the shape {['?' if dim is None else dim for dim in shape]}")
    if nodes := tuple(label(node) for node in subject.graph.nodes() if _turns_dynamic(subject.graph, node)):
        yield Hit("sizes are computed at run time", nodes)


def _turns_dynamic(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node makes a value of dynamic shape of static ones, by what only running tells.

    A size that shape inference does not know, but a compiler that folds constants does, is not dynamic.
    """
    if any(_is_dynamic(graph, name) for name in node.input):
        return False
    if not any(_is_dynamic(graph, name) for name in node.output):
        return False
    sizing = list(node.input)
    if node.op_type not in _SIZED_BY_FIRST:
        sizing = [
            name
            for name in node.input[1:]
            if (dtype := graph.dtype(name)) is not None and dtype.kind in "iub"
        ]
    return any(name in graph.runtime and graph.constant(name) is None for name in sizing)


def _is_dynamic(graph: Graph, name: str) -> bool:
    return any(not isinstance(size, int) for size in graph.shape(name) or ())


def wide_boundary(subject: Subject) -> Iterator[Hit]:
    for kind, values in (("input", subject.graph.inputs), ("output", subject.graph.outputs)):
        for value in values:
            if subject.graph.dtype(value.name) == np.int64:
                yield Hit(f"{kind} {value.name} is int64")


def size(subject: Subject) -> Iterator[Hit]:
    folder = subject.path.parent
    files = [subject.path, *(folder / name for name in subject.graph.external)]
    total = sum(file.stat().st_size for file in files if file.is_file())
    if total > MOST_BYTES:
        yield Hit(f"{total / 1e9:.1f} GB in all")


def external(subject: Subject) -> Iterator[Hit]:
    files, folder = subject.graph.external, subject.path.parent
    missing = [name for name in files if not (folder / name).is_file()]
    outside = [name for name in files if "/" in name or "\\" in name]
    if missing:
        yield Hit(f"weights are missing: {', '.join(missing)}")
    for reason in subject.graph.unread:
        yield Hit(f"weights can't be read, so no rule saw their numbers: {reason}")
    if len(files) > 1:
        yield Hit(f"weights lie in {len(files)} files, such as {files[0]} and {files[1]}")
    elif outside:
        yield Hit(f"weights lie in another folder: {outside[0]}")
    elif files and not files[0].endswith(".data"):
        yield Hit(f"weights lie in {files[0]}, whose name does not end in .data")


def breaks_contract(subject: Subject) -> Iterator[Hit]:
    contract, tower, graph = subject.contract, subject.tower, subject.graph
    if tower is None:
        names = [value.name for value in graph.inputs]
        yield Hit(f"inputs {names}: neither one image [1, 3, H, W] nor one tensor of ids", (), "warning")
        return
    if contract is None:
        shape = list(dimensions(graph.inputs[0]))
        yield Hit(
            f"input {shape} is the {tower} input of no contract ({', '.join(CONTRACTS)})", (), "warning"
        )
        return
    spec = contract.image if tower == "image" else contract.text
    given = graph.inputs[0]
    if given.name != spec.name:
        yield Hit(f"the input is called {given.name!r}, {contract.name} calls it {spec.name!r}")
    if dimensions(given) != spec.shape(1):
        yield Hit(f"the input is {list(dimensions(given))}, {contract.name} gives {list(spec.shape(1))}")
    if graph.dtype(given.name) != np.dtype(spec.dtype):
        yield Hit(f"the input is {graph.dtype(given.name)}, {contract.name} gives {spec.dtype}")
    wanted = contract.embedding.image_name if tower == "image" else contract.embedding.text_name
    output = graph.outputs[0]
    if len(graph.outputs) != 1 or output.name != wanted:
        names = [value.name for value in graph.outputs]
        yield Hit(f"the outputs are called {names}, {contract.name} reads {wanted!r}")
    if len(dimensions(output)) != 2 or dimensions(output)[0] != 1:
        yield Hit(f"the output {output.name} is {list(dimensions(output))}, expected [1, D]")
    if graph.dtype(output.name) != np.dtype(contract.embedding.dtype):
        yield Hit(f"the output {output.name} is {graph.dtype(output.name)}, expected float32")


def opset(subject: Subject) -> Iterator[Hit]:
    version = max(
        (item.version for item in subject.graph.model.opset_import if item.domain in ("", "ai.onnx")),
        default=0,
    )
    newest = onnx.defs.onnx_opset_version()
    if not 11 <= version <= newest:
        yield Hit(f"opset {version}")


RULES = (
    Rule(
        "dynamic-dimension", "error",
        "An NPU graph is laid out in memory when it is compiled: every size must be a number then.",
        "Export at batch 1 with fixed shapes, or fix them: python -m "
        "onnxruntime.tools.make_dynamic_shape_fixed.",
        dynamic,
    ),
    Rule(
        "int64-boundary", "error",
        "AI Hub answers: Must use --truncate_64bit_io when input tensors have type int64; the host must "
        "then send int32 after all.",
        "Take int32 ids at the boundary.",
        wide_boundary,
    ),
    Rule(
        "file-size", "error",
        "An ONNX file, a protobuf message, ends at 2 GB; AI Hub takes no larger one.",
        "Export the two towers apart, quantise, or use a smaller model.",
        size,
    ),
    Rule(
        "external-data", "error",
        "AI Hub takes a folder with exactly one .onnx and at most one .data beside it.",
        "Save with onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, "
        "location='model.data'), or as one file below 2 GB.",
        external,
    ),
    Rule(
        "contract", "error",
        "The evaluation feeds fixed names, shapes and types; a model that differs scores nothing.",
        "Export through the zoo, or rename and reshape at the boundary of the graph.",
        breaks_contract,
    ),
    Rule(
        "opset", "warning",
        "Compilers read opset 11 and later, up to what their own ONNX library knows.",
        "Export at opset 18, or convert with onnx.version_converter.",
        opset,
    ),
)  # fmt: skip
