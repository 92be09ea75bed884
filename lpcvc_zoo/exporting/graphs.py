"""Rewrites of an exported graph: each changes a model in place and returns in how many places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lpcvc_zoo.exporting.lint.graph import FILLED, Graph, attribute

if TYPE_CHECKING:
    from onnxscript import ir

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of the modules that a node is in
MASKED = -50.0  # as a logit: nothing in fp32 and fp16, and no denormal weight, which a CPU is slow with
_FAR = -1e4  # below this, what is added to a logit can only be a mask
_MASKS_IN = {"Add", "Sub", "Where"}
_SHAPED_BY = {"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Trilu", "Unsqueeze"}


def drop_notes(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes at nodes, values and weights, but for the modules that a node is in.

    Its stack traces name files of the machine that exported: one model would be another file elsewhere.
    """
    graph = model.graph
    for noted in (graph, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del noted.metadata_props[:]
    for node in graph.node:
        kept = [note for note in node.metadata_props if note.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def finite_masks(model: onnx.ModelProto) -> int:
    """Masks of minus infinity, or of the least float there is, become -50."""
    graph = Graph(model)
    places = 0
    for name, tensor, holder in _tensors(model):
        takers = set(_takers(graph, name))
        if tensor.data_type != TensorProto.FLOAT or not takers or takers - _MASKS_IN:
            continue
        value = numpy_helper.to_array(tensor)
        if value.size and value.min() < _FAR:
            value = np.where(value < _FAR, np.float32(MASKED), value)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            if holder is not None:
                holder.CopyFrom(helper.make_attribute("value", tensor))
            places += 1
    return places


def int32_ids(model: onnx.ModelProto) -> int:
    """Gathers that look int32 ids up after a cast to int64 look them up as they are."""
    graph = Graph(model)
    places = 0
    for node in graph.nodes("Gather"):
        cast = graph.producer.get(node.input[1])
        widens = cast is not None and cast.op_type == "Cast" and attribute(cast, "to") == TensorProto.INT64
        if cast is not None and widens and graph.dtype(cast.input[0]) == np.int32:
            node.input[1] = cast.input[0]
            places += 1
    if places:
        _drop_unused(model)
    return places


def gelu_tanh(model: onnx.ModelProto) -> int:
    """Exact GELU in its tanh form, written with a sigmoid: x sigmoid(x (a + b x^2)), the same function."""

    def tanh_form(op: Any, x: Any) -> Any:
        inner = op.Add(op.Mul(op.Mul(x, x), _scalar(op, 0.07135481282556)), _scalar(op, 1.5957691216057308))
        return op.Mul(x, op.Sigmoid(op.Mul(x, inner)))

    return _replace_gelu(model, tanh_form)


def gelu_sigmoid(model: onnx.ModelProto) -> int:
    """Exact GELU becomes x sigmoid(1.702 x), as in QuickGELU: another function, up to 0.02 off."""

    def sigmoid_form(op: Any, x: Any) -> Any:
        return op.Mul(x, op.Sigmoid(op.Mul(x, _scalar(op, 1.702))))

    return _replace_gelu(model, sigmoid_form)


def simplify(model: onnx.ModelProto) -> int:
    """onnxscript's constant folding and simplifications; the count is of nodes that went."""
    import onnxscript.optimizer
    from onnxscript import ir

    before = len(model.graph.node)
    inner = ir.from_proto(model)
    onnxscript.optimizer.optimize(inner)
    model.CopyFrom(ir.to_proto(inner))
    return before - len(model.graph.node)


def fusable_gelu(model: ir.Model) -> int:
    """Exact GELU in the order of factors that ONNX Runtime fuses into one operator; the same numbers."""

    def exported(op: Any, x: Any) -> Any:
        return op.Mul(x, op.Mul(0.5, op.Add(op.Erf(op.Div(x, 2**0.5)), 1.0)))

    def fusable(op: Any, x: Any) -> Any:
        wide = op.Erf(op.Div(x, _scalar(op, 2**0.5)))
        return op.Mul(op.Mul(x, op.Add(wide, _scalar(op, 1.0))), _scalar(op, 0.5))

    return _replace(model, exported, fusable)


def gather_at_eot(model: onnx.ModelProto) -> int:
    """Pooling at the end of the text as CLIP has it: gathered where the id is largest."""
    from onnxscript import ir

    def product(op: Any, ids: Any, eot_id: Any, axis: Any, hidden: Any) -> Any:
        at_eot = op.Unsqueeze(op.Cast(op.Equal(ids, eot_id)), axis)
        return op.Squeeze(op.MatMul(at_eot, hidden), axis)

    def gathered(op: Any, ids: Any, eot_id: Any, axis: Any, hidden: Any) -> Any:
        return op.Squeeze(op.Gather(hidden, op.ArgMax(ids, axis=1, keepdims=0), axis=1), axis)

    inner = ir.from_proto(model)
    places = _replace(inner, product, gathered)
    model.CopyFrom(ir.to_proto(inner))
    return places


def _replace_gelu(model: onnx.ModelProto, form: Callable[[Any, Any], Any]) -> int:
    from onnxscript import ir

    def exact(op: Any, x: Any) -> Any:
        return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, 2**0.5)), 1.0)), 0.5)

    inner = ir.from_proto(model)
    places = _replace(inner, exact, form)
    model.CopyFrom(ir.to_proto(inner))
    return places


def _replace(model: ir.Model, old: Callable[..., Any], new: Callable[..., Any]) -> int:
    from onnxscript.rewriter import pattern

    return int(pattern.RewriteRuleSet([pattern.RewriteRule(old, new)], commute=True).apply_to_model(model))


def _scalar(op: Any, value: float) -> Any:
    return op.Constant(value=helper.make_tensor("", TensorProto.FLOAT, [], [value]))


def _takers(graph: Graph, name: str) -> Iterator[str]:
    """The operators that take a value, or what is cut and shaped of it."""
    for node in graph.consumers[name]:
        if node.op_type in _SHAPED_BY and node.input[0] == name:
            yield from _takers(graph, node.output[0])
        else:
            yield node.op_type


def _tensors(
    model: onnx.ModelProto,
) -> Iterator[tuple[str, TensorProto, onnx.AttributeProto | None]]:
    """The value's name and the tensor of every initializer, or of every node that holds or fills one in."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor, None
    for node in model.graph.node:
        for given in node.attribute if node.op_type in FILLED else ():
            if given.name == "value":
                yield node.output[0], given.t, given
            elif given.name in ("value_float", "value_floats"):
                value = np.asarray(helper.get_attribute_value(given), np.float32)
                yield node.output[0], numpy_helper.from_array(value), given


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    for node in [node for node in model.graph.node if not used.intersection(node.output)]:
        model.graph.node.remove(node)
