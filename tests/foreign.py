"""Towers as other tools export them: other names, 64-bit ids, open sizes, channels last, several outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 6
VOCABULARY = 49408


def _weights(*shape: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: dict[str, Any],
    opset: int,
) -> Path:
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def image_tower(
    path: Path,
    *,
    name: str = "pixel_values",
    output: str = "image_embeds",
    shape: Sequence[Any] = ("batch", 3, 224, 224),
    kind: int = TensorProto.FLOAT,
    channels_last: bool = False,
    hidden: bool = False,
    dim: int = DIM,
    scale: float = 1.0,
    opset: int = 17,
) -> Path:
    """Means over patches, projected. ``hidden``: a second output, as transformers' models have one."""
    nodes, at = [], name
    if channels_last:
        nodes.append(helper.make_node("Transpose", [at], ["planes"], perm=[0, 3, 1, 2]))
        at = "planes"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [at], ["numbers"], to=TensorProto.FLOAT))
        at = "numbers"
    nodes += [
        helper.make_node("AveragePool", [at], ["pooled"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], [output]),
    ]
    weights = {"projection": scale * _weights(48, dim, seed=0)}
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dim])]
    if hidden:
        nodes += [
            helper.make_node("MatMul", ["flat", "more"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["last_hidden_state"]),
        ]
        weights["more"] = _weights(48, 5, seed=1)
        outputs.insert(0, helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", 5]))
    return _save(path, nodes, [helper.make_tensor_value_info(name, kind, shape)], outputs, weights, opset)


def text_tower(
    path: Path,
    *,
    names: Sequence[str] = ("input_ids",),
    shape: Sequence[Any] = ("batch", "sequence"),
    kind: int = TensorProto.INT64,
    unit: bool = False,
    dim: int = DIM,
    opset: int = 17,
) -> Path:
    """The sum of the embeddings of all tokens, or of those that the mask lets through, projected."""
    ids, *mask = names
    nodes = [helper.make_node("Gather", ["table", ids], ["tokens"])]
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in names]
    at = "tokens"
    weights = {"table": _weights(VOCABULARY, 3, seed=2), "projection": _weights(3, dim, seed=3)}
    weights["axes"] = np.array([-2], np.int64)
    if mask:
        weights["last"] = np.array([-1], np.int64)
        nodes += [
            helper.make_node("Cast", [mask[0]], ["shown"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["shown", "last"], ["columns"]),
            helper.make_node("Mul", [at, "columns"], ["seen"]),
        ]
        at = "seen"
    output = "text_embeds"
    nodes += [
        helper.make_node("ReduceSum", [at, "axes"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "projection"], ["long" if unit else output]),
    ]
    if unit:
        nodes.append(helper.make_node("LpNormalization", ["long"], [output], axis=-1, p=2))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape[:-1], dim])]
    return _save(path, nodes, inputs, outputs, weights, opset)


def large_image_tower(path: Path, size: int, dim: int = DIM) -> Path:
    """The same for images of another size, their means taken over sixteenths."""
    step = size // 4
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[step] * 2, strides=[step] * 2),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, 3, size, size))]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, (1, dim))]
    return _save(path, nodes, inputs, outputs, {"projection": _weights(48, dim, seed=0)}, 17)
