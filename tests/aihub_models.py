"""Towers of a few nodes as ONNX files, and batches for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 4
IMAGE = (1, 3, 4, 4)
TEXT = (2, 1, 5)


def _save(graph: Any, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def image_tower(folder: Path, seed: int = 0) -> Path:
    """[1, 3, 4, 4] float32 -> [1, DIM], a matrix product."""
    weights = np.random.default_rng(seed).normal(size=(48, DIM)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "weights"], ["image_embedding"], name="project"),
        ],
        "image",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("image_embedding", TensorProto.FLOAT, (1, DIM))],
        [numpy_helper.from_array(weights, "weights")],
    )
    return _save(graph, folder / f"image{seed}.onnx")


def text_tower(folder: Path, seed: int = 0, *, wide: bool = False) -> Path:
    """[2, 1, 5] int32 (``wide``: int64) -> [1, DIM]: the ids times the mask, projected."""
    weights = np.random.default_rng(seed).normal(size=(10, DIM)).astype(np.float32)
    kind = TensorProto.INT64 if wide else TensorProto.INT32
    shape = numpy_helper.from_array(np.array([1, 10], np.int64), "shape")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["text"], ["numbers"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["numbers", "shape"], ["flat"], name="reshape"),
            helper.make_node("MatMul", ["flat", "weights"], ["text_embedding"], name="project"),
        ],
        "text",
        [helper.make_tensor_value_info("text", kind, TEXT)],
        [helper.make_tensor_value_info("text_embedding", TensorProto.FLOAT, (1, DIM))],
        [shape, numpy_helper.from_array(weights, "weights")],
    )
    return _save(graph, folder / f"text{seed}{'wide' if wide else ''}.onnx")


def images(count: int = 3, seed: int = 7) -> dict[str, Any]:
    batch = np.random.default_rng(seed).uniform(0, 255, size=(count, *IMAGE[1:]))
    return {"image": batch.astype(np.float32)}


def texts(count: int = 3, seed: int = 7, *, wide: bool = False) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(0, 49408, size=(2, count, TEXT[2]))
    return {"text": ids.astype(np.int64 if wide else np.int32)}
