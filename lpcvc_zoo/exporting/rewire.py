"""The inputs and outputs of a graph made elsewhere, put into a contract's form by steps that lose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.exporting.lint.shapes import dimensions, known_dtype

OLDEST_OPSET = 11
Shape = tuple[int, ...]
Open = tuple[int | None, ...]  # None: a dimension the graph leaves open


class Rewired:
    """A graph being put into a tower's form under a contract.

    ``changes`` says what was done, ``renamed`` which values have other names now (old -> new). Every refusal
    is a ContractError that lists what was expected and what came.
    """

    def __init__(self, model: onnx.ModelProto, tower: Tower, contract: Contract) -> None:
        self.model, self.tower, self.contract = model, tower, contract
        self.changes: list[str] = []
        self.renamed: dict[str, str] = {}
        self.opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
        if self.opset < OLDEST_OPSET:
            raise ContractError(
                f"{tower} tower, opset", f"{OLDEST_OPSET} or newer", str(self.opset), "Export it once more."
            )

    # ---- inputs

    def fit_input(self) -> None:
        """Give the graph the contract's one input, whatever names, planes and integer width it has."""
        graph, spec = self.model.graph, self._spec
        stored = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in stored]
        planes = self._planes(inputs)
        shape, whole = spec.shape(1), len(inputs) == 1 and planes == ["whole"]
        wanted = [self._wanted(value) for value in inputs]
        if whole and (direct := _stated(wanted[0][0], shape)) and wanted[0][1] == spec.dtype:
            if direct != wanted[0][0]:
                self.changes.append(f"input {inputs[0].name!r} fixed to shape {list(shape)}")
            self._rename(inputs[0].name, spec.name, "input")
        else:
            nodes: list[Any] = []
            for value, (have, dtype), plane in zip(inputs, wanted, planes, strict=True):
                nodes += self._feed(value.name, have, dtype, plane)
            self._vacate(spec.name)
            old = list(graph.node)
            del graph.node[:]
            graph.node.extend([*nodes, *old])
        del graph.input[:]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        graph.input.append(helper.make_tensor_value_info(spec.name, kind, shape))

    def _planes(self, inputs: Sequence[Any]) -> list[str]:
        """What each input of the graph is fed with: all of the contract's tensor, its ids, or its mask."""
        if self.tower == "text" and self.contract.text.has_mask:
            if len(inputs) == 1:
                have, rows = self._wanted(inputs[0])[0], (1, self.contract.text.length)
                ids_alone = _stated(have, rows) or _without_ones(have) == _without_ones(rows)
                return ["ids" if ids_alone else "whole"]
            masks = ["mask" in value.name.lower() for value in inputs]
            if len(inputs) == 2 and sum(masks) == 1:
                return ["mask" if mask else "ids" for mask in masks]
        if len(inputs) != 1:
            raise self._refusal("inputs", "one input", [_shown(value) for value in inputs])
        return ["whole"]

    def _feed(self, name: str, have: Open, dtype: str, plane: str) -> list[Any]:
        """Nodes that make one input of the graph from the contract's tensor."""
        spec = self._spec
        inner = self._free(f"{name}_inside")
        self._rename_value(name, inner)
        at, shape, done = spec.name, spec.shape(1), []
        nodes: list[Any] = []

        def add(kind: str, inputs: list[str], **attributes: Any) -> str:
            output = self._free(f"{self.tower}_{kind.lower()}_{len(nodes)}_{plane}")
            nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
            return output

        if plane != "whole":
            place = ("ids", "mask").index(plane)
            at = add("Slice", [at, *(self._constant(f"{plane}_{i}", v) for i, v in
                                     (("start", [place]), ("end", [place + 1]), ("axis", [0])))])  # fmt: skip
            shape = (1, *shape[1:])
            done.append(f"takes the {'ids' if plane == 'ids' else 'mask'} of {spec.name!r}")
        channels_last = (shape[0], *shape[2:], shape[1]) if self.tower == "image" else None
        forms = (shape, shape[1:] if plane != "whole" else None, channels_last)
        stated = next((form for form in forms if form and _stated(have, form)), None)
        if stated is None and _without_ones(have) == _without_ones(shape):
            stated = tuple(size or 1 for size in have)
        if stated is None:
            raise self._refusal(f"input {name!r}", _words(shape, spec.dtype), [_words(have, dtype)])
        if stated == channels_last:
            at = add("Transpose", [at], perm=[0, 2, 3, 1])
            done.append("turned to channels last")
        elif stated != shape:
            at = add("Reshape", [at, self._constant(f"{plane}_shape", list(stated))])
            done.append(f"reshaped to {list(stated)}")
        if dtype != spec.dtype:
            if not np.can_cast(np.dtype(spec.dtype), np.dtype(dtype), casting="safe"):
                raise self._refusal(f"input {name!r}", _words(shape, spec.dtype), [_words(have, dtype)])
            at = add("Cast", [at], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
            done.append(f"widened from {spec.dtype} to {dtype}")
        nodes[-1].output[0] = inner
        self.changes.append(f"input {name!r}: {', '.join(done)}")
        return nodes

    # ---- the output

    def choose_output(self, asked: str | None = None) -> None:
        """Keep one output: the one asked for, the contract's, or the only one there is."""
        graph = self.model.graph
        names = [value.name for value in graph.output]
        chosen = asked or (names[0] if len(names) == 1 else self._output_name)
        if chosen not in names:
            shown = [_shown(value) for value in graph.output]
            raise self._refusal("outputs", repr(chosen), shown, f"Choose one with --{self.tower}-output.")
        if len(names) > 1:
            kept = next(value for value in graph.output if value.name == chosen)
            del graph.output[:]
            graph.output.append(kept)
            self._drop_unused()
            self.changes.append(f"of {len(names)} outputs only {chosen!r} kept")

    def fit_output(self, shape: Shape, dtype: str, *, normalise: bool) -> int:
        """Make the output the contract's ``[1, D]``; ``shape`` and ``dtype`` are what it really gives. D."""
        graph, wanted = self.model.graph, self.contract.embedding.dtype
        name = graph.output[0].name
        dim = _count(shape)
        if _without_ones(shape) != _without_ones((dim,)) or dim < 2 or len(shape) > 4:
            raise self._refusal(
                f"output {name!r}", f"{wanted} [1, D]", [_words(shape, dtype)],
                "Pooling is the model's own business: export it with its embedding as the output.",
            )  # fmt: skip
        if not np.can_cast(np.dtype(dtype), np.dtype(wanted), casting="safe"):
            raise self._refusal(f"output {name!r}", f"{wanted} [1, {dim}]", [_words(shape, dtype)])
        at, done = name, []

        def add(kind: str, inputs: list[str], **attributes: Any) -> str:
            output = self._free(f"{self.tower}_output_{kind.lower()}")
            graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
            return output

        if shape != (1, dim):
            at = add("Reshape", [at, self._constant("output_shape", [1, dim])])
            done.append(f"reshaped to {[1, dim]}")
        if dtype != wanted:
            at = add("Cast", [at], to=helper.np_dtype_to_tensor_dtype(np.dtype(wanted)))
            done.append(f"widened from {dtype} to {wanted}")
        if normalise:
            axes: dict[str, Any] = {"axes": [1]} if self.opset < 18 else {}
            more = [] if axes else [self._constant("output_axis", [1])]
            at = add("Div", [at, add("ReduceL2", [at, *more], keepdims=1, **axes)])
            done.append("divided by its length")
        if done:
            self.changes.append(f"output {name!r}: {', '.join(done)}")
        del graph.output[:]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(wanted))
        graph.output.append(helper.make_tensor_value_info(at, kind, (1, dim)))
        if done:
            self._vacate(self._output_name)
            self._rename_value(at, self._output_name)
        else:
            self._rename(at, self._output_name, "output")
        return dim

    # ---- names

    def _rename(self, old: str, new: str, what: str) -> None:
        if old != new:
            self._vacate(new)
            self._rename_value(old, new)
            self.changes.append(f"{what} {old!r} renamed to {new!r}")

    def _vacate(self, name: str) -> None:
        """Give another name to whatever inside the graph has this one."""
        if name in set(_names(self.model.graph)):
            self._rename_value(name, self._free(f"{name}_inside"))

    def _rename_value(self, old: str, new: str) -> None:
        _rename(self.model.graph, old, new)
        first = next((first for first, now in self.renamed.items() if now == old), old)
        self.renamed[first] = new

    def _free(self, name: str) -> str:
        taken = {*_names(self.model.graph), self._spec.name, self._output_name}
        count, free = 1, name
        while free in taken:
            count, free = count + 1, f"{name}_{count}"
        return free

    def _constant(self, name: str, numbers: list[int]) -> str:
        free = self._free(f"{self.tower}_{name}")
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), free))
        return free

    def _drop_unused(self) -> None:
        """Leave out nodes and weights that no output needs."""
        graph = self.model.graph
        needed, kept = {value.name for value in graph.output}, []
        for node in reversed(graph.node):
            if needed & set(node.output):
                needed |= set(_used(node))
                kept.append(node)
        initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
        for field, values in ((graph.node, kept[::-1]), (graph.initializer, initializers)):
            del field[:]
            field.extend(values)

    # ---- words

    @property
    def _spec(self) -> Any:
        return self.contract.image if self.tower == "image" else self.contract.text

    @property
    def _output_name(self) -> str:
        embedding = self.contract.embedding
        return embedding.image_name if self.tower == "image" else embedding.text_name

    def _wanted(self, value: Any) -> tuple[Open, str]:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or known_dtype(tensor.elem_type) is None:
            form = f"{_dtype(value)}, {'a' if tensor.HasField('shape') else 'no'} shape"
            raise self._refusal(f"input {value.name!r}", "a tensor's type and shape", [form])
        return _open_shape(value), _dtype(value)

    def _refusal(self, what: str, expected: str, got: list[str], hint: str = "") -> ContractError:
        form = f"{self.tower} {_words(self._spec.shape(1), self._spec.dtype)}"
        expected = f"{expected} (contract {self.contract.name}: {form})"
        return ContractError(f"{self.tower} tower, {what}", expected, "; ".join(got) or "none", hint)


def _stated(have: Open, shape: Shape) -> Shape | None:
    """``shape`` where the graph's own is that or leaves it open, else None."""
    if len(have) != len(shape):
        return None
    return shape if all(mine in (None, size) for mine, size in zip(have, shape, strict=True)) else None


def _without_ones(shape: Open) -> list[int]:
    return [size for size in shape if size is not None and size != 1]


def _count(shape: Open) -> int:
    return int(np.prod([size or 1 for size in shape]))


def _open_shape(value: Any) -> Open:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in dimensions(value))


def _dtype(value: Any) -> str:
    kind = value.type.tensor_type.elem_type
    dtype = known_dtype(kind)
    return f"type {kind}, which no tensor has" if dtype is None else str(dtype)


def _words(shape: Open, dtype: str) -> str:
    return f"{dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"


def _shown(value: Any) -> str:
    return f"{value.name} {_words(_open_shape(value), _dtype(value))}"


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _used(node: Any) -> Iterator[str]:
    """Values that a node reads, those that its inner graphs read from outside included."""
    yield from node.input
    for graph in _graphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _used(inner)


def _names(graph: Any) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        yield value.name
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in _graphs(node):
            yield from _names(inner)


def _rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
        for inner in _graphs(node):
            _rename(inner, old, new)
