"""A cell whose work goes on elsewhere: its jobs are submitted first, and gathered when its turn comes.

Every reference is in the ledger before anyone waits for it, so that a sweep that is killed finds its jobs
again, also from another machine or without the target's own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.bench.ledger import Ledger
from lpcvc_zoo.bench.plan import Cell
from lpcvc_zoo.bench.row import RemoteJob
from lpcvc_zoo.bench.steps import CellWork, describe
from lpcvc_zoo.contract import TOWERS, Tower, get_contract
from lpcvc_zoo.exporting.artifact import Artifact, Parity
from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.retrieval.embed import Embeddings, parts
from lpcvc_zoo.retrieval.evaluate import scored
from lpcvc_zoo.retrieval.metrics import Scores
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.retrieval.remote import BATCH, batch, joined
from lpcvc_zoo.targets.base import Array, AsyncTarget, Compiled, Profile
from lpcvc_zoo.targets.references import (
    CompileReference,
    InferenceReference,
    ProfileReference,
    Reference,
    parse_reference,
    until_done,
)

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", CompileReference, ProfileReference, InferenceReference)


class DeviceScores(BaseModel):
    """Scores from the device's own embeddings, and how far those are from torch's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: Scores
    parity: dict[Tower, Parity]


class RemoteSteps:
    """A cell's steps: each submitted once, its reference kept in the ledger, and collected from there."""

    def __init__(self, target: AsyncTarget, ledger: Ledger, key: str, since: str) -> None:
        self.target = target
        self._ledger, self._key, self._since = ledger, key, since
        self.references: dict[str, Reference] = {}

    def submit(self, step: str, source: str, kind: type[R], submit: Callable[[], R]) -> R:
        """The reference of a step: the one in the ledger, or a new one, written there at once."""
        stored = self._ledger.reference(self._key, step, source, since=self._since)
        if stored is None:
            self._ledger.start(self._key, step, source)
            with self.failing(step):
                reference: Reference = submit()
            self._ledger.refer(self._key, step, reference.model_dump_json())
        else:
            reference = parse_reference(stored)
        assert isinstance(reference, kind)
        self.references[step] = reference
        return reference

    def gather(self, step: str, source: str, kind: type[M], collect: Callable[[], M]) -> M:
        """A step's outcome: from the ledger, or collected now and written there."""
        stored = self._ledger.value(self._key, step, source, since=self._since)
        if stored is not None:
            return kind.model_validate_json(stored)
        reference = self.references[step].model_dump_json() if step in self.references else None
        if reference is None:
            self._ledger.start(self._key, step, source)
        with self.failing(step):
            outcome = collect()
        value = outcome.model_dump_json(round_trip=True)
        self._ledger.finish(self._key, step, value, reference)
        return outcome

    def submit_measurement(self, what: str, file: Path, sha256: str, tower: Tower) -> CompileReference:
        """Submit a file to be compiled and measured."""
        compiling = self.submit(
            f"compile {what}", sha256, CompileReference, lambda: self.target.submit_compile(file, tower)
        )
        self.submit(
            f"profile {what}", compiling.ticket.job_id, ProfileReference,
            lambda: self.target.submit_profile(compiling),
        )  # fmt: skip
        return compiling

    def gather_measurement(self, what: str, file: Path, sha256: str, tower: Tower) -> Profile:
        """What ``submit_measurement`` of the same gave, once it is there."""
        compiling = self.submit_measurement(what, file, sha256, tower)
        profiling = self.references[f"profile {what}"]
        assert isinstance(profiling, ProfileReference)
        compiled = self.gather(f"compile {what}", sha256, Compiled, partial(self._compiled, compiling))
        return self.gather(f"profile {what}", compiled.reference, Profile, partial(self._profile, profiling))

    @contextmanager
    def failing(self, step: str) -> Iterator[None]:
        """Note it in the ledger where the block raises."""
        try:
            yield
        except Exception as error:
            self._ledger.fail(self._key, step, describe(error))
            raise

    def _compiled(self, reference: CompileReference) -> Compiled:
        return self.target.collect(reference)

    def _profile(self, reference: ProfileReference) -> Profile:
        return self.target.collect(reference)


class RemoteWork(CellWork):
    """Measures and scores one claimed cell of an ``AsyncTarget``; ``known`` as in ``CellWork``."""

    def __init__(self, cell: Cell, ledger: Ledger, since: str) -> None:
        super().__init__(cell, ledger, since)
        assert isinstance(cell.target, AsyncTarget)
        self._steps = RemoteSteps(cell.target, ledger, cell.id, since)
        self._preprocessing = RemoteSteps(cell.target, ledger, cell.preprocessing_key, since)

    def submit(self, artifact: Artifact, dataset: RetrievalDataset) -> None:
        """Submit all that this cell needs and that is not known or under way yet; waits for nothing."""
        for tower in artifact.manifest.towers:
            compiling = self._steps.submit_measurement(tower, *_file(artifact, tower), tower)
            if self.cell.dataset is not None:
                self._inferring(compiling, artifact, dataset)
        self.known["jobs"] = tuple(
            RemoteJob(kind=ticket.kind, tower=reference.tower, id=ticket.job_id, url=ticket.url)
            for reference in self._steps.references.values()
            for ticket in reference.tickets
        )

    def submit_preprocessing(self, path: Path) -> None:
        """Submit the in-graph preprocessing to be measured by itself."""
        self._preprocessing.submit_measurement("preprocessing", path, sha256_of(path), "image")

    def gather_preprocessing(self, path: Path) -> float | None:
        """Median milliseconds of the in-graph preprocessing by itself."""
        sha256 = sha256_of(path)
        profile = until_done(
            lambda: self._preprocessing.gather_measurement("preprocessing", path, sha256, "image")
        )
        return profile.latency.median_ms if profile.latency else None

    def gather(self, artifact: Artifact, dataset: RetrievalDataset, torch_embeddings: str | None) -> None:
        """Wait for all jobs and note what they gave; one that failed in passing is submitted once more."""
        until_done(lambda: self._gather(artifact, dataset, torch_embeddings))

    def _gather(self, artifact: Artifact, dataset: RetrievalDataset, torch_embeddings: str | None) -> None:
        self.submit(artifact, dataset)
        for tower in artifact.manifest.towers:
            profile = self._steps.gather_measurement(tower, *_file(artifact, tower), tower)
            self.known[tower] = profile
            self.known["versions"] |= profile.runtime_versions
        if self.cell.dataset is not None:
            found = self._steps.gather(
                "score", f"{artifact.manifest.hashes} {self.cell.dataset}", DeviceScores,
                lambda: self._score(artifact, dataset, torch_embeddings),
            )  # fmt: skip
            self.known["scores"] = found.scores
            self.known |= {f"{tower}_device_parity": found.parity.get(tower) for tower in TOWERS}

    def _inferring(
        self, compiling: CompileReference, artifact: Artifact, dataset: RetrievalDataset
    ) -> list[InferenceReference]:
        """References to the batches of a dataset, in order; prepares only what was not submitted before."""
        contract, tower = get_contract(artifact.manifest.contract), compiling.tower
        source = f"{compiling.ticket.job_id} {self.cell.dataset}"

        def submit(part: slice) -> InferenceReference:
            return self._steps.target.submit_infer(compiling, batch(contract, dataset, tower, part))

        return [
            self._steps.submit(
                f"infer {tower} {number}", source, InferenceReference, partial(submit, part)
            )
            for number, part in enumerate(parts(dataset, tower, BATCH[tower]))
        ]  # fmt: skip

    def _score(
        self, artifact: Artifact, dataset: RetrievalDataset, torch_embeddings: str | None
    ) -> DeviceScores:
        contract = get_contract(artifact.manifest.contract)
        outputs: dict[Tower, Iterator[dict[str, Array]]] = {}
        for tower in TOWERS:
            compiling = self._steps.submit_measurement(tower, *_file(artifact, tower), tower)
            references = self._inferring(compiling, artifact, dataset)
            steps = [f"infer {tower} {number}" for number in range(len(references))]
            outputs[tower] = map(self._outputs, steps, references)
        images, texts = joined(contract, dataset, outputs)
        found: dict[Tower, Embeddings] = {"image": images, "text": texts}
        return DeviceScores(
            scores=scored(images, texts, dataset, contract),
            parity={} if torch_embeddings is None else _parity(found, Path(torch_embeddings)),
        )

    def _outputs(self, step: str, reference: InferenceReference) -> dict[str, Array]:
        with self._steps.failing(step):
            return self._steps.target.collect(reference)


def _file(artifact: Artifact, tower: Tower) -> tuple[Path, str]:
    return artifact.path(tower), artifact.manifest.tower(tower).sha256


def _parity(found: dict[Tower, Embeddings], torch_embeddings: Path) -> dict[Tower, Parity]:
    """How far embeddings are from those that torch gave for the same dataset, saved by ``embed.save``."""
    parity: dict[Tower, Parity] = {}
    with np.load(torch_embeddings) as saved:
        for tower, ours in found.items():
            theirs = saved[f"{tower}_embeddings"]
            cosines = (
                (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
            )
            parity[tower] = Parity(
                samples=len(ours),
                min_cosine=float(cosines.min()),
                max_abs_difference=float(np.abs(ours - theirs).max()),
            )
    return parity
