"""Loads and times one ONNX file in this process, which does nothing else. Run as a module by the target.

``python -m lpcvc_zoo.targets._ort_measure REQUEST`` reads a JSON request and writes a JSON answer beside
it. Only numpy and onnxruntime are imported, so that load time and memory are the model's own.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lpcvc_zoo.sessions import session_options
from lpcvc_zoo.targets._process import die_with_parent

Array = NDArray[np.generic]

WARMUP_SECONDS = 0.2  # the shortest warm-up: clocks and caches settle, however small the model
PROFILED_RUNS = 5


def numpy_dtype(onnx_type: str) -> np.dtype[Any]:
    """ "tensor(float)" -> float32, "tensor(int32)" -> int32, and so on."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def plausible_inputs(session: ort.InferenceSession, sot_id: int, eot_id: int) -> dict[str, Array]:
    """One valid input each: grey levels for floats, a caption of a usual length for integers.

    Grey levels run from 1 to 255, whatever the model's range: latency does not depend on it, and no
    activation becomes denormal. Ids: start, seven tokens, end-of-text to the end; a mask in a second plane.
    """
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for spec in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in spec.shape]
        dtype = numpy_dtype(spec.type)
        if dtype.kind == "f":
            inputs[spec.name] = random.integers(1, 256, shape).astype(dtype)
            continue
        length = shape[-1]
        words = min(7, length - 2)
        ids = np.full(length, eot_id, dtype)
        ids[0] = sot_id
        ids[1 : 1 + words] = random.integers(320, sot_id, words)
        rows = np.broadcast_to(ids, shape).copy()
        if len(shape) == 3 and shape[0] == 2:
            rows[1] = np.arange(length) < words + 2
        inputs[spec.name] = rows
    return inputs


def status_bytes(field: str) -> int | None:
    """A memory figure of /proc/self/status in bytes, None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # then the peak is since the process started, whose imports stay well below a model's
        return


def time_runs(
    session: ort.InferenceSession, inputs: dict[str, Array], request: dict[str, Any]
) -> dict[str, Any]:
    def one() -> float:
        start = time.perf_counter()
        session.run(None, inputs)
        return time.perf_counter() - start

    warmup, warm_seconds = 0, 0.0
    while warmup < request["warmup"] or (warm_seconds < WARMUP_SECONDS and warmup < 100):
        warm_seconds += one()
        warmup += 1
    fewest, most = request["min_iterations"], request["max_iterations"]
    seconds: list[float] = []
    while len(seconds) < fewest or (len(seconds) < most and sum(seconds) < request["seconds"]):
        seconds.append(one())
    return {"warmup_iterations": warmup, "iterations_ms": [round(1000 * value, 4) for value in seconds]}


def operator_times(path: str, inputs: dict[str, Array], threads: int, folder: Path) -> list[dict[str, Any]]:
    """Mean milliseconds of every node per inference, slowest first, from ONNX Runtime's own profiler."""
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "operators")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(1 + PROFILED_RUNS):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    runs = [event for event in events if event["name"] == "model_run"]
    warm = min(run["ts"] + run["dur"] for run in runs)  # the first, cold run is left out
    total: dict[tuple[str, str, str], float] = defaultdict(float)
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        if event["ts"] < warm:
            continue
        args = event["args"]
        unit = str(args.get("provider", "")).removesuffix("ExecutionProvider")
        total[event["name"].removesuffix("_kernel_time"), args["op_name"], unit] += event["dur"] / 1000
    ordered = sorted(total.items(), key=lambda item: -item[1])
    return [
        {"name": name, "type": kind, "unit": unit or None, "time_ms": round(ms / PROFILED_RUNS, 5)}
        for (name, kind, unit), ms in ordered
    ]


def measure(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    path, threads = request["path"], request["threads"]
    given = folder / "inputs.npz"
    stored = dict(np.load(given)) if given.exists() else None
    reset_peak()
    before = status_bytes("VmRSS")
    start = time.perf_counter()
    session = ort.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    answer: dict[str, Any] = {
        "load_ms": round(1000 * (time.perf_counter() - start), 3),
        "version": ort.__version__,
    }
    inputs = stored or plausible_inputs(session, request["sot_id"], request["eot_id"])
    answer |= time_runs(session, inputs, request)
    peak = status_bytes("VmHWM")
    answer["peak_memory_bytes"] = peak - before if peak is not None and before is not None else None
    answer["operators"] = operator_times(path, inputs, threads, folder) if request["operators"] else None
    return answer


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Load without optimising: enough to know that the file is a model this runtime takes."""
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    return {"version": ort.__version__}


def main(request_file: str) -> None:
    path = Path(request_file)
    request = json.loads(path.read_text())
    die_with_parent(request["parent"])
    try:
        answer = check(request) if request["what"] == "check" else measure(request, path.parent)
    except Exception as error:  # the runtime's own exceptions have no common base; the parent reports them
        answer = {"error": f"{type(error).__name__}: {error}"}
    path.with_name("answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
