"""A target of your own: ONNX Runtime on graphs that were optimised once, ahead of time.

An app would ship such files: loading them skips the runtime's graph optimisation. A board or a cloud
service looks the same from outside: ``compile`` sends the file there, ``profile`` asks for numbers,
``infer`` sends arrays. In a distribution of yours, one line of its pyproject.toml puts the target into
``get_target`` and ``--target``::

    [project.entry-points."lpcvc_zoo.targets"]
    offline_cpu = "custom_target:OfflineCpu"

Run this file to see it beside the built-in target::

    python examples/custom_target.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.files import cache_dir, sha256_of, written_whole
from lpcvc_zoo.sessions import session_options
from lpcvc_zoo.targets.base import Array, Compiled, Profile, Tower
from lpcvc_zoo.targets.onnxruntime import OnnxRuntimeTarget

NAME = "offline_cpu"


class OfflineCpu:
    """The four things every target does; measuring and running are left to the built-in CPU target."""

    name = NAME
    exclusive = True  # latency is this machine's: nothing else of ours may run meanwhile

    def __init__(self, threads: int | None = None) -> None:
        self._runtime = OnnxRuntimeTarget(threads)
        self.device = self._runtime.device

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes a measurement, so that a sweep knows what is already done."""
        return self._runtime.fingerprint() | {"target": self.name, "optimised": "extended, ahead of time"}

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        """Optimise the graph and keep the result; TargetError where the runtime refuses it."""
        source = sha256_of(onnx_file)
        path = cache_dir() / NAME / f"{source}-{onnxruntime.__version__}.onnx"
        if not path.is_file():
            options = session_options()  # 16 bits stay 16
            # One level below "all", whose result would be good for this very CPU only.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            with written_whole(path) as temporary:
                options.optimized_model_filepath = str(temporary)
                try:
                    onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
                except Exception as error:  # onnxruntime's exceptions share no base class of their own
                    raise TargetError(f"{onnx_file}: ONNX Runtime can't optimise it: {error}") from error
        return Compiled(
            target=self.name, device=self.device, tower=tower, reference=str(path), source_sha256=source
        )

    def profile(self, compiled: Compiled) -> Profile:
        """All iterations, load time and memory of one tower, as the built-in target measures them."""
        return self._runtime.profile(self._for_runtime(compiled)).model_copy(update={"target": self.name})

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._runtime.infer(self._for_runtime(compiled), inputs)

    def _for_runtime(self, compiled: Compiled) -> Compiled:
        if compiled.target != self.name:
            raise TargetError(f"This was compiled for target {compiled.target!r}, not for {self.name!r}.")
        return compiled.model_copy(update={"target": self._runtime.name})


def main() -> None:
    from lpcvc_zoo import build, export

    with tempfile.TemporaryDirectory() as folder:
        model = build("efficientvit_b0_text_s", contract="lpcvc2026_sample")
        artifact = export(model, folder)
        for target in (OnnxRuntimeTarget(), OfflineCpu()):
            for tower in ("image", "text"):
                measured = target.profile(target.compile(artifact.path(tower), tower))
                assert measured.latency is not None
                print(
                    f"{target.name:12} {tower:5} {measured.latency.median_ms:6.2f} ms, "
                    f"loaded in {measured.load_ms:.0f} ms"
                )


if __name__ == "__main__":
    main()
