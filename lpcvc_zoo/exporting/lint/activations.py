"""How large every value of a tower gets on the bundled photos or captions, as ONNX Runtime computes it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.lint.graph import Graph
from lpcvc_zoo.exporting.onnx import parity_inputs
from lpcvc_zoo.sessions import session_options


def peaks(graph: Graph, contract: Contract, tower: Tower) -> dict[str, float]:
    """The largest magnitude of each float value over a few real inputs; NaN where there was one.

    ExportError where ONNX Runtime can't run the model.
    """
    import onnxruntime

    within_reach = {name for node in graph.model.graph.node for name in node.output}  # not in a body
    wanted = [
        name
        for node in graph.nodes()
        for name in node.output
        if name in within_reach and (dtype := graph.dtype(name)) is not None and dtype.kind == "f"
    ]
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    there = {value.name for value in model.graph.output}
    for name in wanted:
        if name not in there:
            kind = helper.np_dtype_to_tensor_dtype(graph.dtype(name))
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    found = dict.fromkeys(wanted, 0.0)
    given, samples = graph.inputs[0].name, parity_inputs(contract, tower)
    dtype, own = graph.dtype(given), samples[0].dtype
    if dtype is None or not np.can_cast(own, dtype, casting="same_kind"):  # int64 ids and fp16 pixels may be
        raise ExportError(
            f"Its activations can't be measured: the input {given} is {dtype}, expected {own} or a type that "
            "differs in width alone."
        )
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        for sample in samples:
            for name, value in zip(wanted, session.run(wanted, {given: sample.astype(dtype)}), strict=True):
                if value.size:
                    found[name] = float(np.maximum(found[name], np.abs(value).max()))  # carries a NaN on
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise ExportError(f"Its activations can't be measured, ONNX Runtime fails: {error}") from error
    return found
