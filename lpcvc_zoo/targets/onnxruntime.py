"""ONNX Runtime on this machine's CPU: the target that is always there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lpcvc_zoo
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.sessions import PRODUCTS_IN_FLOAT, session_options
from lpcvc_zoo.targets._process import describe_exit
from lpcvc_zoo.targets.base import Array, Compiled, Latency, OperatorTime, Profile, Tower
from lpcvc_zoo.targets.samples import Specs, split

if TYPE_CHECKING:
    import onnxruntime

NAME = "onnxruntime"
CHILD_TIMEOUT_S = 900
OPEN_SESSIONS = 2  # both towers of one model


class OnnxRuntimeTarget:
    """Measures a tower in a fresh process and runs batches in this one.

    ``threads``: None means every CPU this process may use. A profile holds ``iterations`` runs where that
    is given; otherwise as many as fit into ``seconds``, but 10 at least and 100 at most. Before them come
    ``warmup`` runs or more (0.2 s at least), which are counted but not kept. ``operators``: also record the
    time of every node, in runs of their own.

    In a profile, ``load_ms`` is the time to make a session from the file, graph optimisation included;
    ``peak_memory_bytes`` is how far resident memory rose above its level just before loading (from
    /proc, so None outside Linux): weights, packed copies of them and activations, without the runtime's
    own libraries and the input.
    """

    name = NAME
    exclusive = True

    def __init__(
        self,
        threads: int | None = None,
        *,
        iterations: int | None = None,
        warmup: int = 3,
        seconds: float = 3.0,
        operators: bool = False,
    ) -> None:
        for option, value, least in (
            ("threads", threads, 1),
            ("iterations", iterations, 1),
            ("warmup", warmup, 0),
        ):
            if value is not None and value < least:
                raise TargetError(f"{option}: expected {least} or more, got {value}.")
        self.device = cpu_name()
        self.threads = threads if threads is not None else usable_cpus()
        self.iterations, self.warmup, self.seconds, self.operators = iterations, warmup, seconds, operators
        self._sessions: dict[tuple[str, str], onnxruntime.InferenceSession] = {}

    def fingerprint(self) -> dict[str, Any]:
        return {
            "target": self.name,
            "device": self.device,
            "onnxruntime": version("onnxruntime"),
            "threads": self.threads,
            "options": dict([PRODUCTS_IN_FLOAT]),
            "iterations": self.iterations,
            "warmup": self.warmup,
            "seconds": self.seconds,
        }

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        """Check that the file is there and loads; the reference is its path. TargetError otherwise."""
        path = Path(onnx_file).resolve()
        if not path.is_file():
            raise TargetError(
                f"{path} is missing: expected an exported {tower} tower. Export the model again."
            )
        self._child({"what": "check", "path": str(path)})
        return Compiled(
            target=self.name,
            device=self.device,
            tower=tower,
            reference=str(path),
            source_sha256=sha256_of(path),
        )

    def profile(self, compiled: Compiled, inputs: Mapping[str, Array] | None = None) -> Profile:
        """Load and time one tower in a process of its own.

        ``inputs``: arrays of exactly the compiled shapes, such as a prepared photo; otherwise random grey
        levels and a caption of usual length. TargetError where the runtime refuses the model or its
        process dies.
        """
        path = self._path(compiled)
        fewest, most = (self.iterations, self.iterations) if self.iterations else (10, 100)
        text = TextSpec()
        answer = self._child(
            {
                "what": "measure",
                "path": str(path),
                "threads": self.threads,
                "warmup": self.warmup,
                "min_iterations": fewest,
                "max_iterations": most,
                "seconds": self.seconds,
                "operators": self.operators,
                "sot_id": text.sot_id,
                "eot_id": text.eot_id,
            },
            inputs,
        )
        operators = answer["operators"]
        return Profile(
            target=self.name,
            device=self.device,
            runtime_versions={"onnxruntime": answer["version"]},
            threads=self.threads,
            latency=Latency(
                iterations_ms=tuple(answer["iterations_ms"]), warmup_iterations=answer["warmup_iterations"]
            ),
            load_ms=answer["load_ms"],
            peak_memory_bytes=answer["peak_memory_bytes"],
            file_bytes=path.stat().st_size,
            operators=None
            if operators is None
            else tuple(OperatorTime(**operator) for operator in operators),
        )

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch one sample at a time, outputs stacked along their first axis.

        Each input has the compiled shape, or a longer batch axis: the one that is 1 in the compiled shape
        and differs here (axis 1 of ``[2, N, 77]``). TargetError names a wrong input, shape or dtype.
        """
        session = self._session(compiled)
        samples = split(_specs(session), inputs, f"{compiled.tower} tower")
        names = [output.name for output in session.get_outputs()]
        try:
            results = [session.run(names, sample) for sample in samples]
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise TargetError(f"{compiled.reference}: ONNX Runtime failed: {error}") from error
        return {
            name: np.concatenate([result[index] for result in results]) for index, name in enumerate(names)
        }

    def _path(self, compiled: Compiled) -> Path:
        if compiled.target != self.name:
            raise TargetError(f"This was compiled for target {compiled.target!r}, not for {self.name!r}.")
        path = Path(compiled.reference)
        if not path.is_file():
            raise TargetError(f"{path} is missing. Export the model again.")
        return path

    def _session(self, compiled: Compiled) -> onnxruntime.InferenceSession:
        key = (compiled.reference, compiled.source_sha256)
        if key not in self._sessions:
            import onnxruntime

            path = self._path(compiled)
            while len(self._sessions) >= OPEN_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            try:
                self._sessions[key] = onnxruntime.InferenceSession(
                    str(path), session_options(self.threads), providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise TargetError(f"{path}: ONNX Runtime can't load it: {error}") from error
        return self._sessions[key]

    def _child(self, request: dict[str, Any], inputs: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """Run the measuring module on a request in a fresh process and read its answer."""
        with tempfile.TemporaryDirectory(prefix="lpcvc_zoo_") as name:
            folder = Path(name)
            if inputs is not None:
                np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
            (folder / "request.json").write_text(json.dumps(request | {"parent": os.getpid()}))
            package_root = str(Path(lpcvc_zoo.__file__).parents[1])
            search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
            # -P: a file of the current folder must not stand in for a library.
            command = [
                sys.executable,
                "-P",
                "-m",
                "lpcvc_zoo.targets._ort_measure",
                str(folder / "request.json"),
            ]
            try:
                done = subprocess.run(
                    command, env=os.environ | {"PYTHONPATH": search}, stdin=subprocess.DEVNULL,
                    capture_output=True, text=True, errors="replace", timeout=CHILD_TIMEOUT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise TargetError(
                    f"{request['path']}: no answer after {CHILD_TIMEOUT_S} s; stopped."
                ) from None
            answer_file = folder / "answer.json"
            if done.returncode != 0 or not answer_file.is_file():
                last = done.stderr.strip().splitlines()[-1:] or ["no message"]
                raise TargetError(
                    f"{request['path']}: the process running it ended early, "
                    f"{describe_exit(done.returncode)}: {last[0]}"
                )
            answer: dict[str, Any] = json.loads(answer_file.read_text())
        if "error" in answer:
            raise TargetError(f"{request['path']}: ONNX Runtime refused it: {answer['error']}")
        return answer


def usable_cpus() -> int:
    """How many CPUs this process may use (its affinity, where the system has one)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU's model name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _specs(session: onnxruntime.InferenceSession) -> Specs:
    from lpcvc_zoo.targets._ort_measure import numpy_dtype

    return {spec.name: (tuple(spec.shape), str(numpy_dtype(spec.type))) for spec in session.get_inputs()}
