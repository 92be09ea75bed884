"""Two compiled towers against the rules: boundary, outputs, latency, recall; each check says what it saw."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import TOWERS, Contract, Tower
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import ContractError, SubmissionError, TargetError
from lpcvc_zoo.retrieval import embed
from lpcvc_zoo.retrieval.evaluate import CompiledPair, evaluate
from lpcvc_zoo.retrieval.metrics import Recall, Scores
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets.aihub import AIHubTarget, Service, ServiceUnavailableError
from lpcvc_zoo.targets.aihub.source import Specs
from lpcvc_zoo.targets.base import Array, Compiled
from lpcvc_zoo.targets.references import JobRunningError

PHOTOS, CAPTIONS = 2, 3  # run on the device to see what comes out


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Record):
    """One rule. ``passed``: None where it could not be told."""

    name: str
    passed: bool | None
    detail: str


class Job(_Record):
    """A compile job as the service has it."""

    tower: Tower
    id: str
    name: str
    url: str
    device: str
    options: str


class Review(_Record):
    """Everything seen. ``ready``: nothing speaks against handing it in."""

    contract: str
    model: str | None
    device: str
    image: Job
    text: Job
    image_ms: float | None
    text_ms: float | None
    budget_ms: float | None
    reference_ms: float | None
    recall: Recall | None
    dataset: str | None
    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        return all(check.passed is not False for check in self.checks)

    @property
    def jobs(self) -> tuple[Job, Job]:
        return self.image, self.text


def review(
    target: AIHubTarget,
    jobs: dict[Tower, str],
    contract: Contract,
    *,
    row: ResultRow | None = None,
    dataset: RetrievalDataset | None = None,
    model: str | None = None,
    budget_ms: float | None = None,
    reference_ms: float | None = None,
) -> Review:
    """Check two compile jobs of ``target``'s device and account. Shares nothing.

    A few photos and captions are run on the device, and where ``row`` has no latency of these jobs, both
    towers are measured; jobs of earlier reviews and sweeps are taken up again. ``dataset``: measure recall on
    it, on the device; else it is the row's. ``budget_ms``: the contract's where None. SubmissionError where a
    job is none of a compilation; ServiceUnavailableError where the service is away; what breaks a rule is a
    check that did not pass.
    """
    found = {tower: _job(target.service, tower, jobs[tower]) for tower in TOWERS}
    checks: list[Check] = []
    compiled: dict[Tower, Compiled] = {}
    for tower in TOWERS:
        checks.append(_compiled(target, found[tower]))
        if checks[-1].passed:
            checks.append(_inputs(target.service, found[tower], contract))
        if checks[-1].passed:
            compiled[tower] = Compiled(
                target=target.name,
                device=target.device,
                tower=tower,
                reference=jobs[tower],
                source_sha256="",
            )
    sizes: dict[Tower, int] = {}
    checks += [_outputs(target, ready, contract, sizes) for ready in compiled.values()]
    if len(sizes) == len(TOWERS):
        same = sizes["image"] == sizes["text"]
        detail = f"image {sizes['image']}, text {sizes['text']}"
        checks.append(Check(name="one embedding size", passed=same, detail=detail))
    if row is not None:
        detail = row.weights if row.trained else "untrained: good for a rehearsal, and for nothing else"
        checks.append(Check(name="weights", passed=True if row.trained else None, detail=detail))
    usable = len(sizes) == len(TOWERS)
    latencies = _latencies(target, compiled, row) if usable else {}
    budget = budget_ms if budget_ms is not None else contract.latency_budget_ms
    checks += _budget(latencies, budget, reference_ms)
    scores = row.scores if row is not None else None
    if dataset is not None and usable:
        scores = evaluate(CompiledPair(target, compiled), dataset, contract=contract)
    recall = scores.recall(contract.metric.k, contract.metric.mode) if scores else None
    checks.append(_recall(recall, scores, contract))
    return Review(
        contract=contract.name,
        model=model,
        device=target.device,
        image=found["image"],
        text=found["text"],
        image_ms=latencies.get("image"),
        text_ms=latencies.get("text"),
        budget_ms=budget,
        reference_ms=reference_ms,
        recall=recall,
        dataset=scores.dataset if scores else None,
        checks=tuple(checks),
    )


def _job(service: Service, tower: Tower, job_id: str) -> Job:
    import qai_hub

    job = service.job(job_id)
    if not isinstance(job, qai_hub.CompileJob):
        kind = type(job).__name__
        raise SubmissionError(f"{job_id} is a {kind}: expected the compile job of the {tower} tower.")
    return Job(
        tower=tower,
        id=job_id,
        name=job.name,
        url=service.url(job_id),
        device=job.device.name,
        options=job.options,
    )


def _compiled(target: AIHubTarget, job: Job) -> Check:
    name = f"{job.tower} compiled for {target.device}"
    status = target.service.status(job.id)
    if not status.success:
        why = status.message or "it is not done yet"
        return Check(name=name, passed=False, detail=f"{job.id}: {status.code}, {why}. See {job.url}")
    return Check(name=name, passed=job.device == target.device, detail=f"{job.id}: {job.device}")


def _inputs(service: Service, job: Job, contract: Contract) -> Check:
    spec = contract.image if job.tower == "image" else contract.text
    wanted: Specs = {spec.name: (spec.shape(1), spec.dtype)}
    got = service.compiled_inputs(job.id)
    detail = _shown(got) if got == wanted else f"expected {_shown(wanted)}, got {_shown(got)}"
    return Check(name=f"{job.tower} input", passed=got == wanted, detail=detail)


def _outputs(target: AIHubTarget, compiled: Compiled, contract: Contract, sizes: dict[Tower, int]) -> Check:
    """Run samples on the device; ``sizes`` gets the embedding's size where all is well."""
    tower = compiled.tower
    name = f"{tower} output"
    spec = contract.image if tower == "image" else contract.text
    try:
        found = embed.output_of(
            contract, tower, target.infer(compiled, {spec.name: _samples(contract, tower)})
        )
        contract.check_embedding(found)
    except (ServiceUnavailableError, JobRunningError):
        raise
    except (ContractError, TargetError) as error:
        return Check(name=name, passed=False, detail=str(error))
    sizes[tower] = found.shape[1]
    return Check(
        name=name, passed=True,
        detail=f"{found.dtype} [1, {found.shape[1]}], finite, of unit length, in {len(found)} samples",
    )  # fmt: skip


def _samples(contract: Contract, tower: Tower) -> Array:
    import numpy as np

    if tower == "text":
        return contract.prepare_text(sample_captions(CAPTIONS))
    return np.concatenate([contract.prepare_image(path) for path in sample_photos(PHOTOS)])


def _latencies(
    target: AIHubTarget, compiled: dict[Tower, Compiled], row: ResultRow | None
) -> dict[Tower, float]:
    if row is not None and row.image_ms is not None and row.text_ms is not None:
        return {"image": row.image_ms, "text": row.text_ms}
    profiles = {tower: target.profile(ready) for tower, ready in compiled.items()}
    return {tower: profile.latency.median_ms for tower, profile in profiles.items() if profile.latency}


def _budget(latencies: dict[Tower, float], budget: float | None, reference: float | None) -> list[Check]:
    """The stated budget decides; the measured reference decides only where none is stated."""
    if len(latencies) < len(TOWERS):
        return [Check(name="latency", passed=None, detail="not measured")]
    total = sum(latencies.values())
    said = f"{total:.2f} ms (image {latencies['image']:.2f}, text {latencies['text']:.2f})"
    checks = []
    if budget is not None:
        checks.append(Check(name="stated budget", passed=total <= budget, detail=f"{said} of {budget:g} ms"))
    if reference is None:
        detail = "OpenAI's CLIP was not measured on this device; --measure-reference does it"
        checks.append(Check(name="measured reference", passed=None, detail=detail))
    else:
        within = total <= reference
        passed = within or (None if budget is not None else False)
        detail = f"{said}, OpenAI's CLIP takes {reference:.2f} ms here"
        checks.append(Check(name="measured reference", passed=passed, detail=detail))
    return checks


def _recall(recall: Recall | None, scores: Scores | None, contract: Contract) -> Check:
    if recall is None or scores is None:
        return Check(name=contract.metric.label, passed=None, detail="not measured; --dataset measures it")
    detail = (
        f"{recall.value:.3f} (95 % interval {recall.low:.3f} to {recall.high:.3f}; chance "
        f"{recall.chance:.3f}) "
        f"on {scores.dataset}: {scores.images} images, {scores.texts} texts"
    )
    passed = True if recall.low > recall.chance else None
    return Check(name=contract.metric.label, passed=passed, detail=detail)


def _shown(specs: Specs) -> str:
    shown = (f"{name} {dtype} {list(shape)}" for name, (shape, dtype) in specs.items())
    return ", ".join(shown) or "nothing"
