"""CLIP-like dual encoders that fit a phone-class NPU: one contract, one export adapter, one benchmark.

Public names are imported on first use, so that ``import lpcvc_zoo`` stays quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "build": "lpcvc_zoo.registry",
    "list_models": "lpcvc_zoo.registry",
    "get_entry": "lpcvc_zoo.registry",
    "get_contract": "lpcvc_zoo.contract",
    "Contract": "lpcvc_zoo.contract",
    "Entry": "lpcvc_zoo.entry",
    "Pretrained": "lpcvc_zoo.entry",
    "Preprocessing": "lpcvc_zoo.entry",
    "TextSpec": "lpcvc_zoo.entry",
    "DualEncoder": "lpcvc_zoo.model",
    "Towers": "lpcvc_zoo.model",
    "export": "lpcvc_zoo.exporting.onnx",
    "load_artifact": "lpcvc_zoo.exporting.artifact",
    "adopt": "lpcvc_zoo.exporting.adopt",
    "evaluate": "lpcvc_zoo.retrieval.evaluate",
    "load_dataset": "lpcvc_zoo.retrieval.datasets",
    "recall_at_k": "lpcvc_zoo.retrieval.metrics",
    "Recipe": "lpcvc_zoo.training.recipe",
    "train": "lpcvc_zoo.training.run",
    "ZooError": "lpcvc_zoo.errors",
}
__all__ = [
    "Contract",
    "DualEncoder",
    "Entry",
    "Preprocessing",
    "Pretrained",
    "Recipe",
    "TextSpec",
    "Towers",
    "ZooError",
    "__version__",
    "adopt",
    "build",
    "evaluate",
    "export",
    "get_contract",
    "get_entry",
    "list_models",
    "load_artifact",
    "load_dataset",
    "recall_at_k",
    "train",
]

if TYPE_CHECKING:
    from lpcvc_zoo.contract import Contract, get_contract
    from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained, TextSpec
    from lpcvc_zoo.errors import ZooError
    from lpcvc_zoo.exporting.adopt import adopt
    from lpcvc_zoo.exporting.artifact import load_artifact
    from lpcvc_zoo.exporting.onnx import export
    from lpcvc_zoo.model import DualEncoder, Towers
    from lpcvc_zoo.registry import build, get_entry, list_models
    from lpcvc_zoo.retrieval.datasets import load_dataset
    from lpcvc_zoo.retrieval.evaluate import evaluate
    from lpcvc_zoo.retrieval.metrics import recall_at_k
    from lpcvc_zoo.training.recipe import Recipe
    from lpcvc_zoo.training.run import train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
