"""One tower made ready to be quantised, again and again with other layers left out."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.data import PHOTOS, calibration_pool, sample_captions, sample_photos
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import Calibration, Parity
from lpcvc_zoo.exporting.engines import Engine, Prepared
from lpcvc_zoo.exporting.graphs import SCOPES
from lpcvc_zoo.exporting.lint.graph import Graph
from lpcvc_zoo.exporting.lint.miscompiled import swish_pairs
from lpcvc_zoo.exporting.multipliers import fit_multipliers
from lpcvc_zoo.exporting.parity import agreement, run_onnx

CHECKED: dict[Tower, int] = {"image": 12, "text": 24}  # how many embeddings are compared
_LAYER = re.compile(r"^(.*?\d+(?:\.(?:blocks|layers)\.\d+)?)")
# Always float: the host's pixels and ids made the tower's own, rows looked up in the token embedding (a
# quantised one the NPU reads as a whole, for every text), what a rewrite names so, and the division to unit
# length at the end.
_ADAPTER, _LOOKUP, _IN_FLOAT, _END = "adapter", "(lookup)", "in_float", "(end)"
WITH_LOGITS = "Softmax with its logits"
_OF_LOGITS = {"Softmax", "Add", "Sub", "Mul", "Div"}  # what scales, shifts and masks them


@dataclass(frozen=True)
class Pool:
    """Photos and captions that ranges may be taken from. ``source``: what they are, for the manifest.

    ``fingerprint`` is empty for the bundled ones, which change with the package alone.
    """

    source: str
    photos: tuple[Path, ...]
    captions: tuple[str, ...]
    fingerprint: str = ""


def bundled_pool() -> Pool:
    """The bundled photos and captions that never score a quantised model."""
    photos, captions = calibration_pool()
    return Pool("bundled photos and captions, the calibration part", tuple(photos), tuple(captions))


class Quantizable:
    """A float tower, prepared by ONNX Runtime's steps for QNN, in an engine that has measured its ranges.

    ``layers``: names of nodes by the layer of the network that they belong to, as torch named it.
    ``operators``: the same nodes by their type, and softmaxes once more ``WITH_LOGITS``.
    """

    def __init__(
        self,
        path: Path,
        tower: Tower,
        contract: Contract,
        precision: str,
        samples: list[Any],
        folder: Path,
        engine: Callable[[Prepared], Engine],
    ) -> None:
        from onnxruntime.quantization.execution_providers.qnn import qnn_preprocess_model

        self.folder = folder
        prepared = folder / "prepared.onnx"
        layers = layers_of(onnx.load(path).graph.node)
        if not qnn_preprocess_model(str(path), str(prepared)):
            prepared = path
        model = onnx.load(prepared)
        if own_numbers(model) + gates_first(model) + relus_first(model):
            prepared = folder / "prepared.onnx"
            onnx.save(model, prepared)
        graph = model.graph
        # The quantiser may leave these out, when what they were given has the range of what they give.
        clips = [node for node in graph.node if node.op_type in ("Relu", "Clip")]
        self.clipped = {name for node in clips for name in (node.input[0], *node.output)}
        self.layers = _grouped(graph, layers)
        fixed = {
            name for layer in (_ADAPTER, _LOOKUP, _IN_FLOAT, _END) for name in self.layers.pop(layer, [])
        }
        if not self.layers:
            raise ExportError(
                f"The {tower} tower can't be quantised: expected nodes that note which of torch's modules "
                f"they come from, as torch's exporter does; {path.name} has none. Quantise it where it was "
                "made, and adopt the result."
            )
        self.operators: dict[str, list[str]] = {}
        for node in graph.node:
            if node.name not in fixed:
                self.operators.setdefault(node.op_type, []).append(node.name)
        if found := [name for name in softmaxes_with_logits(model) if name not in fixed]:
            self.operators[WITH_LOGITS] = found
        # Layers are chosen by what calibrates: what judges the outcome has no say in it.
        self.chosen_by = _Check(path, samples[: CHECKED[tower]])
        self.judged_by = _Check(path, held_out_inputs(contract, tower))
        bits = 16 if precision == "w8a16" else 8
        self.engine = engine(Prepared(prepared, graph.input[0].name, samples, bits, fixed, folder))
        self._kept: set[str] | None = None
        self.quantized(())

    def quantized(self, kept: Iterable[str]) -> Path:
        """A file quantised but for these nodes; the next call may overwrite it."""
        out = self.folder / "quantized.onnx"
        chosen = set(kept)
        if chosen != self._kept:
            self.engine.write(chosen, out)
            fit_multipliers(out, self.clipped)
            self._kept = chosen
        return out

    def mean_cosine(self, kept: Iterable[str]) -> float:
        """Of the tower quantised but for these nodes, to the float one, on some of what calibrated it."""
        found = self.chosen_by.agreements(self.quantized(kept))
        return float(np.mean([parity.min_cosine for parity in found]))


class _Check:
    """Inputs and what the float tower makes of them."""

    def __init__(self, path: Path, inputs: list[Any]) -> None:
        self.inputs, self.expected = inputs, run_onnx(str(path), inputs)

    def agreements(self, file: Path) -> list[Parity]:
        """Agreement of a file with the float tower, input by input."""
        pairs = zip(self.expected, run_onnx(str(file), self.inputs), strict=True)
        return [agreement([one], [other]) for one, other in pairs]


def calibration_inputs(
    contract: Contract, tower: Tower, pool: Pool, count: int, seed: int
) -> tuple[list[Any], Calibration]:
    """``count`` prepared photos or captions of a pool, drawn by ``seed``; fewer where it has fewer."""
    everything: list[Any] = list(pool.photos if tower == "image" else pool.captions)
    chosen = random.Random(seed).sample(everything, min(count, len(everything)))
    prepare = contract.prepare_image if tower == "image" else contract.prepare_text
    facts = Calibration(source=pool.source, samples=len(chosen), seed=seed)
    return [prepare(item) for item in chosen], facts


def held_out_inputs(contract: Contract, tower: Tower) -> list[Any]:
    """Prepared bundled photos or captions from outside the calibration pool."""
    photos, captions = calibration_pool()
    count = CHECKED[tower]
    everything = sum(1 for _ in (PHOTOS / "images").glob("*.jpg"))
    if tower == "image":
        left = [photo for photo in sample_photos(everything) if photo not in set(photos)]
        return [contract.prepare_image(photo) for photo in left[:: len(left) // count][:count]]
    texts = [text for text in sample_captions(3 * count) if text not in set(captions)]
    return [contract.prepare_text(text) for text in texts[:count]]


def own_numbers(model: onnx.ModelProto) -> int:
    """Give a Pad's number and a Clip's bounds a copy of their own where others take them; says how many.

    Quantised for one node, a number is none to the others any more but a DequantizeLinear, and for a Pad or
    a Clip that was left in float the compiler takes constants only. Clips may share: none has its bounds
    quantised.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    takers = Counter((name, node.op_type) for node in model.graph.node for name in node.input)
    places = 0
    for node in model.graph.node:
        for place in {"Pad": (2,), "Clip": (1, 2)}.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            others = sum(count for (taken, kind), count in takers.items() if taken == name and kind != "Clip")
            if name in stored and others > (node.op_type == "Pad"):
                own = onnx.TensorProto()
                own.CopyFrom(stored[name])
                own.name = node.input[place] = f"{node.output[0]}_number_{place}"
                model.graph.initializer.append(own)
                takers[name, node.op_type] -= 1
                places += 1
    return places


def gates_first(model: onnx.ModelProto) -> int:
    """Put the HardSigmoid of a hard swish before what it gates; says how many were behind it.

    ONNX Runtime's steps for QNN write x HardSigmoid(x). Where that is left in float, the compiler computes
    x² HardSigmoid(x) (lint's rule hard-swish-pair).
    """
    places = 0
    for node in swish_pairs(Graph(model)):
        node.input[0], node.input[1] = node.input[1], node.input[0]
        places += 1
    return places


def relus_first(model: onnx.ModelProto) -> int:
    """Put each ReLU before the transpose whose result it alone takes; says how many were behind one.

    Quantising makes a ReLU part of the range of what it takes, and the compiler does not clip what a
    transpose gives (lint's rule clipped-transpose).
    """
    graph, places = Graph(model), 0
    for second in list(graph.nodes("Relu")):
        first = graph.producer.get(second.input[0])
        if first is None or first.op_type != "Transpose" or len(graph.takers(second.input[0])) > 1:
            continue
        between = second.input[0]
        transpose, relu = onnx.NodeProto(), onnx.NodeProto()
        transpose.CopyFrom(first)
        relu.CopyFrom(second)
        relu.input[0], relu.output[0] = first.input[0], between
        transpose.input[0], transpose.output[0] = between, second.output[0]
        first.CopyFrom(relu)
        second.CopyFrom(transpose)
        known = [value for value in model.graph.value_info if value.name != between]
        del model.graph.value_info[:]
        model.graph.value_info.extend(known)
        places += 1
    return places


def softmaxes_with_logits(model: onnx.ModelProto) -> list[str]:
    """Names of every Softmax and of the nodes before it, back to the product that its logits are.

    Left in float alone, a Softmax still takes logits of 8 bits: they are written by what is quantised.
    """
    graph = Graph(model)
    found: dict[str, None] = {}
    for softmax in graph.nodes("Softmax"):
        before = [softmax]
        while len(before) == 1:
            (node,) = before
            found[node.name] = None
            taken = [name for name in node.input if name in graph.runtime and node.op_type in _OF_LOGITS]
            before = [graph.producer[name] for name in taken if name in graph.producer]
    return list(found)


def layers_of(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """The layer that each value is made in, by the scopes that torch's exporter notes at every node."""
    found: dict[str, str] = {}
    for node in nodes:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        if SCOPES not in notes:
            continue
        scopes = [scope for scope in ast.literal_eval(notes[SCOPES])[1:-1] if scope]
        layer = _END if not scopes else scopes[-1].removeprefix("tower.")
        layer = _ADAPTER if scopes and scopes[0] == _ADAPTER else layer
        layer = _IN_FLOAT if _IN_FLOAT in layer.split(".") else layer
        match = _LAYER.match(layer)
        found |= dict.fromkeys(node.output, match.group(1) if match else layer)
    return found


def _grouped(graph: onnx.GraphProto, layers: dict[str, str]) -> dict[str, list[str]]:
    """Names of nodes by layer; one that preparation made belongs with the one before it."""
    groups: dict[str, list[str]] = {}
    layer = around = _ADAPTER
    weights = {weight.name for weight in graph.initializer}
    for node in graph.node:
        layer = next((layers[name] for name in node.output if name in layers), around)
        around = around if layer == _IN_FLOAT else layer  # what follows is not left in float with it
        lookup = node.op_type == "Gather" and node.input[0] in weights
        groups.setdefault(_LOOKUP if lookup else layer, []).append(node.name)
    return groups
