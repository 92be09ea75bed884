"""The process that runs Qualcomm's native code, which may crash or hang. Run as a module by the target.

``python -m lpcvc_zoo.targets.qnn._worker PARENT_PID`` reads one JSON request a line and answers each with
one JSON line. Only numpy and onnxruntime are imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lpcvc_zoo.targets._process import die_with_parent

PROVIDER = "QNNExecutionProvider"
CONTEXT = "context.onnx"  # written beside it: context_qnn.bin
WARNINGS = 2  # onnxruntime's log level; the compiler names what it refuses there


class Runtime:
    """ONNX Runtime with Qualcomm's provider loaded; holds the one session that ``run`` uses."""

    def __init__(self) -> None:
        import onnxruntime
        import onnxruntime_qnn

        onnxruntime.set_default_logger_severity(WARNINGS)
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
        if not devices:
            raise RuntimeError(f"ONNX Runtime offers no device of {PROVIDER}.")
        self.onnxruntime, self.device = onnxruntime, devices[0]
        self.session: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        what: dict[str, Callable[..., dict[str, Any]]]
        what = {"compile": self.compile, "place": self.place, "load": self.load, "run": self.run}
        return what[request.pop("what")](**request)

    def compile(self, path: str, folder: str, soc_model: int, htp_arch: int) -> dict[str, Any]:
        """Compile to ``CONTEXT`` in ``folder``, all for the NPU; the compiler's schematic comes beside it."""
        os.chdir(folder)  # the schematic is written to the current folder, whatever that is
        settings = {
            "session.disable_cpu_ep_fallback": "1",
            "ep.context_enable": "1",
            "ep.context_file_path": str(Path(folder, CONTEXT)),
            "ep.context_embed_mode": "0",
        }
        # Without "optrace" no schematic is written.
        profiling = {"profiling_level": "optrace", "profiling_file_path": str(Path(folder, "profile.csv"))}
        session = self._session(path, soc_model, htp_arch, settings, profiling)
        return {"nodes": _placed(session), "inputs": _inputs(session)}

    def place(self, path: str, soc_model: int, htp_arch: int) -> dict[str, Any]:
        """Which provider takes each node, where the CPU may have what the NPU refuses."""
        session = self._session(path, soc_model, htp_arch, {}, {})
        return {"nodes": _placed(session), "inputs": _inputs(session)}

    def load(self, path: str, soc_model: int, htp_arch: int) -> dict[str, Any]:
        self.session = self._session(path, soc_model, htp_arch, {"session.disable_cpu_ep_fallback": "1"}, {})
        return {}

    def run(self, inputs: str, outputs: str) -> dict[str, Any]:
        """Emulate one sample: .npz in, .npz out."""
        names = [output.name for output in self.session.get_outputs()]
        with np.load(inputs) as arrays:
            results = self.session.run(names, dict(arrays))
        np.savez(outputs, **dict(zip(names, results, strict=True)))
        return {}

    def _session(
        self, path: str, soc_model: int, htp_arch: int, settings: dict[str, str], more: dict[str, str]
    ) -> Any:
        options = self.onnxruntime.SessionOptions()
        settings = {"session.record_ep_graph_assignment_info": "1"} | settings
        for key, value in settings.items():
            options.add_session_config_entry(key, value)
        chip = {"backend_type": "htp", "soc_model": str(soc_model), "htp_arch": str(htp_arch)}
        options.add_provider_for_devices([self.device], chip | more)
        return self.onnxruntime.InferenceSession(path, options)


def _placed(session: Any) -> list[tuple[str, str, bool]]:
    """Name, operator and "is on the NPU" of every node of the graph as ONNX Runtime has simplified it."""
    return [
        (node.name, node.op_type, part.ep_name == PROVIDER)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def _inputs(session: Any) -> dict[str, tuple[list[int | str | None], str]]:
    return {spec.name: (spec.shape, spec.type) for spec in session.get_inputs()}


def main(parent_pid: int) -> None:
    die_with_parent(parent_pid)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native code prints, and must not print into the answers
    runtime = None
    for line in sys.stdin:
        try:
            runtime = runtime or Runtime()
            answer = runtime.answer(json.loads(line))
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
