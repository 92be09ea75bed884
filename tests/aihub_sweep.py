"""Exports of a few nodes under a real contract, for sweeps against the loopback service.

Run as a program it is such a sweep in a process of its own, which tests may kill: OUT DATASET, and "all" for
every built-in entry instead of three stand-ins.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sweep_fakes
from onnx import TensorProto, helper, numpy_helper

from lpcvc_zoo.bench.cut import TextCut
from lpcvc_zoo.bench.options import SweepOptions
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.bench.sweep import run
from lpcvc_zoo.bench.workers import Done, Job
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.exporting.artifact import FILES, MANIFEST, Manifest, Parity, TowerFile, load_artifact
from lpcvc_zoo.files import sha256_of, write_text
from lpcvc_zoo.targets.aihub import AIHubTarget, Patience

CONTRACT = "lpcvc2026_sample"
DIM = 4
ENTRIES = tuple(sweep_fakes.entry(f"alpha_{number}", float(number)) for number in range(3))


def _save(folder: Path, tower: str, nodes: list[Any], weights: dict[str, Any]) -> TowerFile:
    contract = get_contract(CONTRACT)
    spec = contract.image if tower == "image" else contract.text
    output = contract.embedding.image_name if tower == "image" else contract.embedding.text_name
    kind = TensorProto.FLOAT if tower == "image" else TensorProto.INT32
    graph = helper.make_graph(
        [*nodes, helper.make_node("LpNormalization", ["projected"], [output], name="unit", axis=-1, p=2)],
        tower,
        [helper.make_tensor_value_info(spec.name, kind, spec.shape(1))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, DIM))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / FILES[tower]  # type: ignore[index]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return TowerFile(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        nodes=len(graph.node),
        input_name=spec.name,
        input_shape=spec.shape(1),
        input_dtype=spec.dtype,
        output_name=output,
        output_shape=(1, DIM),
        output_dtype="float32",
        parity=Parity(samples=1, min_cosine=1.0, max_abs_difference=0.0),
    )


def export(
    name: str,
    weights: str,
    contract: str,
    cut: TextCut,
    rewrites: str = "none",
    precision: str = "float",
    calibration: str = "",
) -> str:
    """Both towers: the image pooled and projected, the ids projected."""
    folder = Path(os.environ[sweep_fakes.FOLDER]) / name
    if (folder / MANIFEST).exists():
        return str(folder)
    spec, numbers = get_contract(contract), np.random.default_rng(list(name.encode()))
    names = spec.image.name, spec.text.name
    image = _save(
        folder,
        "image",
        [
            helper.make_node("AveragePool", [names[0]], ["pooled"], kernel_shape=[56, 56], strides=[56, 56]),
            helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "weights"], ["projected"], name="project"),
        ],
        {"weights": numbers.normal(size=(48, DIM)).astype(np.float32)},
    )
    text = _save(
        folder,
        "text",
        [
            helper.make_node("Cast", [names[1]], ["numbers"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["numbers", "weights"], ["projected"], name="project"),
        ],
        {"weights": numbers.normal(size=(spec.text.shape(1)[-1], DIM)).astype(np.float32)},
    )
    manifest = Manifest(
        entry=name, family="fake", weights=weights, contract=contract, fused=True, text_length=77,
        image_size=224, embed_dim=DIM, interpolation="bicubic", opset=18, versions={"tool": "1"}, seconds=0.0,
        image=image, text=text,
    )  # fmt: skip
    write_text(folder / MANIFEST, manifest.model_dump_json())
    return str(folder)


def export_preprocessing(name: str, weights: str, contract: str) -> str:
    folder = Path(os.environ[sweep_fakes.FOLDER]) / "preprocessing"
    if not (folder / FILES["image"]).exists():
        pool = helper.make_node("AveragePool", ["image"], ["p"], kernel_shape=[224, 224], name="pool")
        grey = helper.make_node("Flatten", ["p"], ["projected"], name="flatten")
        contract_image = get_contract(contract).image
        graph = helper.make_graph(
            [pool, grey],
            "preprocessing",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, contract_image.shape(1))],
            [helper.make_tensor_value_info("projected", TensorProto.FLOAT, (1, 3))],
        )
        folder.mkdir(parents=True, exist_ok=True)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, folder / FILES["image"])
    return str(folder / FILES["image"])


def embeddings(name: str, weights: str, contract: str, cut: TextCut, dataset: str) -> str:
    """As torch would give them: these towers have no torch model, so ONNX Runtime stands in for it."""
    from lpcvc_zoo.retrieval.evaluate import evaluate

    path = Path(os.environ[sweep_fakes.FOLDER]) / f"{name}-{Path(dataset).name}.npz"
    if not path.exists():
        evaluate(load_artifact(export(name, weights, contract, cut)), dataset, save_embeddings=path)
    return str(path)


def no_report(rows: Sequence[ResultRow], folder: Path) -> None:
    """Reports are tested elsewhere."""


TOOLS = Tools(
    export=export,
    export_preprocessing=export_preprocessing,
    torch_embeddings=embeddings,
    export_id=sweep_fakes.export_id,
    weights=sweep_fakes.weights,
    write_report=no_report,
)


class Inline:
    """Stands in for the worker processes: the same jobs, done here, so that a test has hundreds of sweeps."""

    def __init__(self, count: int, threads: int) -> None:
        pass

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        for index, (function, arguments) in enumerate(jobs):
            yield Done(index, value=function(*arguments))

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def options(out: Path, dataset: Path, **more: Any) -> SweepOptions:
    return SweepOptions(out=out, dataset=str(dataset), contracts=(CONTRACT,), evaluate_untrained=True, **more)


def target(**more: Any) -> AIHubTarget:
    return AIHubTarget(patience=Patience(tries=6, first_s=0.001, most_s=0.002), poll_s=0.001, **more)


def comparable(row: ResultRow) -> dict[str, Any]:
    """A row without what a run does not decide: moments, and the numbers the service gives its jobs."""
    facts = row.model_dump(mode="json", exclude={"created", "jobs"})
    for tower in TOWERS:
        if facts[tower] is not None:
            del facts[tower]["job_id"], facts[tower]["job_url"]
    return facts | {"jobs": sorted((job.kind, job.tower) for job in row.jobs)}


if __name__ == "__main__":
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.005))  # type: ignore[assignment]
    asked = options(Path(sys.argv[1]), Path(sys.argv[2]), models=("*",), jobs=1)
    entries = None if sys.argv[3:] == ["all"] else ENTRIES
    outcome = run(asked, tools=TOOLS, entries=entries, targets=[target()])
    sys.exit(outcome.exit_code(True))
