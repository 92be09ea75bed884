"""Whether a file is an ONNX model at all, as far as that shows without its weights."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from lpcvc_zoo.exporting.lint.bodies import nodes_of
from lpcvc_zoo.exporting.lint.shapes import CONTRIBUTED, known_dtype, without_weights


def flaw(model: onnx.ModelProto) -> str | None:
    """Why ONNX refuses a model, such as a cycle or a value made twice; None where it does not."""
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind and known_dtype(kind) is None:
            return f"{value.name} is of type {kind}, which ONNX does not have"
    for node in nodes_of(model.graph):
        if node.op_type == "Constant" and not node.attribute:
            return f"the Constant {node.output[0]} has no value"
    try:
        onnx.checker.check_model(_forgiven(model))
    except onnx.checker.ValidationError as error:
        return " ".join(str(error).split())
    except ValueError:  # what it can't take in, of 2 GB: a rule says so
        return None
    return None


def _forgiven(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what the checker demands and ONNX Runtime does not."""
    light = without_weights(model)
    light.ir_version = max(light.ir_version, 4)  # before, every weight was to be an input too
    light.graph.name = light.graph.name or "graph"
    if all(item.domain != CONTRIBUTED for item in light.opset_import):
        light.opset_import.append(helper.make_opsetid(CONTRIBUTED, 1))
    for value in (*light.graph.input, *light.graph.output):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ()))
    return light
