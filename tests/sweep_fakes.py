"""Stand-ins for the slow rooms around a sweep: exports of a few bytes, a target that measures nothing.

Every export and measurement is noted in ``journal`` with its start and end, so that tests can see what ran
when, and how often, over several processes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpcvc_zoo.bench.cut import TextCut
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import DatasetError, TargetError
from lpcvc_zoo.exporting.artifact import FILES, MANIFEST, Artifact, Manifest, Parity, TowerFile
from lpcvc_zoo.files import sha256_of, write_text
from lpcvc_zoo.retrieval.metrics import Recall, Scores
from lpcvc_zoo.retrieval.records import Problem, RetrievalDataset
from lpcvc_zoo.targets.base import TOWERS, Array, Compiled, Latency, Profile, Tower

PAUSE = "SWEEP_FAKES_PAUSE"  # seconds that each fake step takes
FOLDER = "SWEEP_FAKES_FOLDER"  # where fake exports and the journal go


def entry(name: str, cost: float, **more: Any) -> Entry:
    facts: dict[str, Any] = {
        "name": name,
        "family": name.split("_")[0],
        "make": dict,
        "image_size": 224,
        "embed_dim": 8,
        "licence": "none",
        "paper": "none",
        "image_gmacs": cost,
        "text_gmacs": 0.0,
    }
    return Entry(**(facts | more))


ENTRIES = (
    entry("beta_mid", 2.0),
    entry("alpha_small", 1.0, quick=True),
    entry("beta_large", 4.0),
    entry("alpha_huge", 9.0, default_sweep=False),
    entry("gamma_wide", 3.0),
)


def journal(what: str, began: float) -> None:
    line = json.dumps({"what": what, "began": began, "ended": time.time(), "pid": os.getpid()}) + "\n"
    with (Path(os.environ[FOLDER]) / "journal").open("a") as file:
        file.write(line)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "journal"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def pause() -> float:
    began = time.time()
    time.sleep(float(os.environ.get(PAUSE, "0")))
    return began


def export(
    name: str, weights: str, contract: str, cut: TextCut, rewrites: str, precision: str, calibration: str
) -> str:
    if name.endswith("_broken"):
        raise ValueError(f"{name} does not export")
    if name.endswith("_hungry"):
        os.kill(os.getpid(), signal.SIGKILL)
    began = pause()
    folder = Path(os.environ[FOLDER]) / f"{name}-{weights}-{contract}-{cut}"
    towers: dict[str, Any] = {}
    for tower in TOWERS:
        write_text(folder / FILES[tower], f"{name} {weights} {tower}")
        towers[tower] = TowerFile(
            file=FILES[tower],
            sha256=sha256_of(folder / FILES[tower]),
            size_bytes=10,
            nodes=1,
            input_name=tower,
            input_shape=(1,),
            input_dtype="float32",
            output_name=f"{tower}_embedding",
            output_shape=(1, 8),
            output_dtype="float32",
            parity=Parity(samples=1, min_cosine=0.99999, max_abs_difference=0.0),
        )
    manifest = Manifest(
        entry=name,
        family="fake",
        weights=weights if weights == "untrained" else f"{weights}@abc",
        contract=contract,
        fused=True,
        text_length=cut.text_length or 77,
        text_depth=cut.text_depth,
        image_size=224,
        embed_dim=8,
        interpolation="bicubic",
        opset=18,
        versions={"tool": "1"},
        seconds=0.0,
        **towers,
    )
    write_text(folder / MANIFEST, manifest.model_dump_json())
    journal(f"export {name} {weights}", began)
    return str(folder)


def export_preprocessing(name: str, weights: str, contract: str) -> str:
    path = Path(os.environ[FOLDER]) / f"preprocessing-{contract}.onnx"
    write_text(path, contract)
    return str(path)


def export_id(
    name: str, weights: str, contract: str, cut: TextCut, rewrites: str, precision: str, calibration: str
) -> str:
    return f"{name} {weights} {contract} {cut}"


def weights(found: Entry, pretrained: bool | None) -> str:
    """As if no checkpoint were on this machine."""
    return found.pretrained[0].tag if pretrained and found.pretrained else "untrained"


class FakeTarget:
    """Its latency is the length of the file's text, so that every run gives the same rows."""

    name = "fake"
    device = "nowhere"
    exclusive = True

    def fingerprint(self) -> dict[str, Any]:
        return {"target": self.name, "threads": 1}

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        return Compiled(
            target=self.name,
            device=self.device,
            tower=tower,
            reference=str(onnx_file),
            source_sha256=sha256_of(onnx_file),
        )

    def profile(self, compiled: Compiled) -> Profile:
        began = pause()
        text = Path(compiled.reference).read_text()
        if "_slippery" in text and compiled.tower == "text":
            raise TargetError(f"{compiled.reference} slipped")
        journal(f"profile {text}", began)
        return Profile(
            target=self.name,
            device=self.device,
            runtime_versions={"fake": "1"},
            latency=Latency(iterations_ms=(float(len(text)),), warmup_iterations=0),
        )

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise AssertionError("the fake score does not run the target")


def score(
    artifact: Artifact, target: Any, compiled: dict[Tower, Compiled], dataset: RetrievalDataset
) -> Scores:
    began = pause()
    journal(f"score {artifact.manifest.entry} on {dataset.name}", began)
    recall = Recall(
        direction="image_to_text", k=10, mode="fraction", value=0.5, low=0.4, high=0.6, chance=0.1
    )
    return Scores(
        dataset=dataset.name,
        images=10,
        texts=100,
        recalls=(recall,),
        median_rank_image_to_text=3,
        median_rank_text_to_image=3,
    )


def write_report(rows: Sequence[ResultRow], folder: Path) -> None:
    write_text(folder / "results.json", json.dumps([comparable(row) for row in rows], sort_keys=True))


def comparable(row: ResultRow) -> dict[str, Any]:
    """A row without what differs from run to run."""
    return row.model_dump(mode="json", exclude={"created"})


def load_dataset(name: str) -> RetrievalDataset:
    if name == "nowhere":
        raise DatasetError("nowhere does not exist")
    problems = (Problem("img_list.csv", 7, "image 'x.jpg' not found"),) if name == "flawed" else ()
    return RetrievalDataset(name, (Path(f"{name}.jpg"),), ("a.", "b."), ((0,),), problems=problems)


def fingerprint(dataset: RetrievalDataset) -> str:
    return f"fingerprint of {dataset.name}"


def chance(dataset: RetrievalDataset, contract: str) -> float:
    return 0.1


TOOLS = Tools(
    export=export,
    export_preprocessing=export_preprocessing,
    export_id=export_id,
    weights=weights,
    load_dataset=load_dataset,
    fingerprint=fingerprint,
    chance=chance,
    score=score,
    write_report=write_report,
)
