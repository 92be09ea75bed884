"""Qualcomm AI Hub as a target."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, overload

from lpcvc_zoo.errors import TargetError, UnknownNameError
from lpcvc_zoo.targets.aihub.collect import collect
from lpcvc_zoo.targets.aihub.devices import (
    DEFAULT_DEVICE,
    FRAMEWORKS,
    GROUPS,
    PRECISIONS,
    find_devices,
    problems,
)
from lpcvc_zoo.targets.aihub.jobs import Jobs, job_key
from lpcvc_zoo.targets.aihub.samples import chunks, dataset_key, digests, split
from lpcvc_zoo.targets.aihub.service import Patience, open_service
from lpcvc_zoo.targets.aihub.source import Source, Specs, read_source
from lpcvc_zoo.targets.aihub.store import Store
from lpcvc_zoo.targets.aihub.uploads import Uploads
from lpcvc_zoo.targets.base import Array, Compiled, Profile, Tower
from lpcvc_zoo.targets.references import (
    CompileReference,
    InferenceReference,
    ProfileReference,
    Reference,
    Ticket,
    TicketKind,
    until_done,
)

NAME = "aihub"
NARROW = "--truncate_64bit_io"
MOST_UPLOAD_BYTES = 256 * 2**20  # of numbers in one dataset, before compression


class Calibration(Protocol):
    """Gives a batch for a tower's inputs (name -> shape and dtype); ``fingerprint`` identifies its data."""

    fingerprint: str

    def __call__(self, tower: Tower, inputs: Specs) -> Mapping[str, Array]: ...


class AIHubTarget:
    """Compiles, measures and runs towers on a device of Qualcomm AI Hub. An ``AsyncTarget``.

    ``device``: a name, chipset or attribute; of several that match, the one with the newest system.
    ``runtime``: qnn_dlc, qnn_context_binary, precompiled_qnn_onnx, onnx or tflite. ``precision``: float (fp16
    on the NPU), w8a16 or w8a8; the latter two need ``calibration``. ``compile_options``, ``run_options``: the
    service's own, added to ours. ``iterations``: timed runs of a profile. ``qairt_version``: "2.31" or
    "latest"; the service's default if None. Jobs of another ``series`` are submitted anew, where a
    measurement shall be repeated. ``account``: the client's profile ``~/.qai_hub/ACCOUNT.ini`` instead of its
    default configuration. ``poll_s``: pause between questions about a running job; ``timeout_s``: how long to
    wait for one (JobRunningError then).

    Making one asks the service for its devices and versions. MissingExtraError without the client,
    UnknownNameError for unknown names, TargetError where the device can't run what is asked for.
    """

    name = NAME
    exclusive = False
    takes_encodings = True  # AIMET's, beside a tower's file

    def __init__(
        self,
        device: str = DEFAULT_DEVICE,
        runtime: str = "qnn_dlc",
        *,
        precision: str = "float",
        calibration: Calibration | None = None,
        compile_options: str = "",
        run_options: str = "",
        iterations: int = 100,
        qairt_version: str | None = None,
        series: str = "",
        account: str | None = None,
        poll_s: float = 10.0,
        timeout_s: float | None = None,
        patience: Patience | None = None,
    ) -> None:
        for what, value, known in (("runtime", runtime, FRAMEWORKS), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise UnknownNameError(what, value, known)
        if iterations < 1:
            raise TargetError(f"iterations: expected 1 or more, got {iterations}.")
        if "--target_runtime" in compile_options or "--qairt_version" in f"{compile_options} {run_options}":
            raise TargetError("Give the runtime and the QAIRT version by name, not among the options.")
        if precision != "float" and calibration is None:
            raise TargetError(f"Precision {precision} needs calibration inputs: expected calibration=...")
        self.service = open_service(account, patience)
        self.info = find_devices(device, self.service.devices())[0]
        if found := problems(self.info, runtime, precision):
            raise TargetError("; ".join(found) + ".")
        self.device = self.info.name
        self.runtime, self.precision = runtime, precision
        self.compile_options, self.run_options, self.iterations = compile_options, run_options, iterations
        self.qairt = _qairt(self.service.qairt_versions(), qairt_version)
        self._pinned = f"--qairt_version {self.qairt}" if qairt_version is not None else ""
        self.series, self.poll_s, self.timeout_s = series, poll_s, timeout_s
        self._calibration = None if precision == "float" else calibration
        store = Store(self.service.host)
        self._uploads, self._jobs = Uploads(self.service, store), Jobs(self.service, store)

    @staticmethod
    def expand(device: str) -> tuple[str, ...]:
        """Names of the devices that a group or attribute stands for; a name or chipset stays as it is."""
        if device not in GROUPS and ":" not in device:
            return (device,)
        return tuple(dict.fromkeys(found.name for found in find_devices(device, open_service().devices())))

    def fingerprint(self) -> dict[str, Any]:
        return {
            "target": self.name,
            "device": self.device,
            "os": self.info.os,
            "runtime": self.runtime,
            "precision": self.precision,
            "calibration": self._calibration and self._calibration.fingerprint,
            "compile_options": self.compile_options,
            "run_options": self.run_options,
            "iterations": self.iterations,
            "qairt": self.qairt,
            "series": self.series,
        }

    def submit_compile(self, onnx_file: Path, tower: Tower) -> CompileReference:
        """Submit a tower to be compiled, after quantisation where the precision asks for it.

        TargetError where the file is not one the service takes, before anything is sent.
        """
        source = read_source(onnx_file, tower)
        quantize = None if self.precision == "float" else self._submit_quantize(source, tower)
        quantized = None if quantize is None else quantize.job_id
        narrow = NARROW if source.wide and self.runtime != "onnx" else ""
        options = _words(f"--target_runtime {self.runtime}", narrow, self._pinned, self.compile_options)

        def prepare(name: str) -> Callable[[], Any]:
            model = self._made_by(quantized) if quantized else self._uploads.model(source)
            return lambda: self.service.client.submit_compile_job(
                model, self._hub_device(), name=name, input_specs=source.inputs, options=options, retry=False
            )

        ticket = self._submit(
            "compile", tower, options, prepare,
            {"model": source.content, "quantize": quantized}, after=quantized,
        )  # fmt: skip
        return CompileReference(
            target=self.name,
            device=self.device,
            tower=tower,
            ticket=ticket,
            source_sha256=source.sha256,
            quantize=quantize,
        )

    def submit_profile(self, compiled: Compiled | CompileReference) -> ProfileReference:
        """Submit a compiled tower, or one still being compiled, to be measured."""
        job_id, tower = self._compile_job(compiled), compiled.tower
        options = _words(f"--max_profiler_iterations {self.iterations}", self._pinned, self.run_options)
        client = self.service.client
        # From 0.56 on; such a client can't read the kind of job that older ones submit, nor they this kind.
        as_inference = "profile" in inspect.signature(client.submit_inference_job).parameters

        def prepare(name: str) -> Callable[[], Any]:
            model = self._made_by(job_id)
            how: dict[str, Any] = {"name": name, "options": options, "retry": False}
            if as_inference:
                return lambda: client.submit_inference_job(model, self._hub_device(), profile=True, **how)
            return lambda: client.submit_profile_job(model, self._hub_device(), **how)

        facts = {"compile": job_id, "as inference": as_inference}
        ticket = self._submit("profile", tower, options, prepare, facts, after=job_id)
        return ProfileReference(target=self.name, device=self.device, tower=tower, ticket=ticket)

    def submit_infer(
        self, compiled: Compiled | CompileReference, inputs: Mapping[str, Array]
    ) -> InferenceReference:
        """Submit a batch to be run; a large one becomes several jobs. TargetError names a wrong input.

        Each input has the compiled shape, or a longer batch axis.
        """
        job_id, tower = self._compile_job(compiled), compiled.tower
        job = self.service.job(job_id)
        columns = split(job.shapes, inputs, f"{tower} tower", narrow=NARROW in job.options)
        parts = list(chunks(columns, MOST_UPLOAD_BYTES))
        return InferenceReference(
            target=self.name,
            device=self.device,
            tower=tower,
            tickets=tuple(self._submit_part(job_id, tower, part) for part in parts),
            samples=tuple(len(next(iter(part.values()))) for part in parts),
            distinct=len(set(digests(columns))),
        )

    def state(self, reference: Reference) -> Literal["running", "done", "failed"]:
        """How far the jobs of a reference are, without waiting."""
        states = [self.service.status(ticket.job_id) for ticket in reference.tickets]
        if any(state.failure for state in states):
            return "failed"
        return "done" if all(state.success for state in states) else "running"

    @overload
    def collect(self, reference: CompileReference) -> Compiled: ...

    @overload
    def collect(self, reference: ProfileReference) -> Profile: ...

    @overload
    def collect(self, reference: InferenceReference) -> dict[str, Array]: ...

    def collect(self, reference: Reference) -> Compiled | Profile | dict[str, Array]:
        """Wait for the jobs of a reference and fetch their result; from any process, at any later time.

        JobFailedError where the service failed one (``transient``: submit the same again), JobRunningError
        after ``timeout_s``, TargetError where a result is missing or not plausible.
        """
        return collect(self.service, self._jobs, reference, poll_s=self.poll_s, timeout_s=self.timeout_s)

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        return until_done(lambda: self.collect(self.submit_compile(onnx_file, tower)))

    def profile(self, compiled: Compiled) -> Profile:
        return until_done(lambda: self.collect(self.submit_profile(compiled)))

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch on the device; outputs stacked in the order of the samples, and finite."""
        return until_done(lambda: self.collect(self.submit_infer(compiled, inputs)))

    def _submit(
        self,
        kind: TicketKind,
        tower: Tower,
        options: str,
        prepare: Callable[[str], Callable[[], Any]],
        facts: dict[str, Any],
        after: str | None = None,
    ) -> Ticket:
        where = {"device": self.device, "os": self.info.os, "qairt": self.qairt}
        if kind == "quantize":  # done without any device
            where = {}
        key = job_key(kind, {**where, "series": self.series, "tower": tower, "options": options, **facts})
        versions = {} if self.qairt is None else {"QAIRT": self.qairt}
        return self._jobs.submit(kind, tower, key, options, prepare, after=after, versions=versions)

    def _submit_quantize(self, source: Source, tower: Tower) -> Ticket:
        from qai_hub.client import QuantizeDtype

        assert self._calibration is not None  # checked when made
        columns = split(
            source.inputs,
            self._calibration(tower, source.inputs),
            f"{tower} tower, calibration",
            narrow=False,
        )
        key = dataset_key(columns)
        activations = QuantizeDtype.INT16 if self.precision == "w8a16" else QuantizeDtype.INT8

        def prepare(name: str) -> Callable[[], Any]:
            model, data = self._uploads.model(source), self._uploads.dataset(columns, key)
            return lambda: self.service.client.submit_quantize_job(
                model, data, weights_dtype=QuantizeDtype.INT8, activations_dtype=activations, name=name
            )

        facts = {"model": source.content, "calibration": key, "precision": self.precision}
        return self._submit("quantize", tower, "", prepare, facts)

    def _submit_part(self, job_id: str, tower: Tower, columns: dict[str, list[Any]]) -> Ticket:
        key = dataset_key(columns)
        options = _words(self._pinned, self.run_options)

        def prepare(name: str) -> Callable[[], Any]:
            model, data = self._made_by(job_id), self._uploads.dataset(columns, key)
            return lambda: self.service.client.submit_inference_job(
                model, self._hub_device(), data, name=name, options=options, retry=False
            )

        facts = {"compile": job_id, "data": key}
        return self._submit("inference", tower, options, prepare, facts, after=job_id)

    def _compile_job(self, compiled: Compiled | CompileReference) -> str:
        if compiled.target != self.name:
            raise TargetError(f"This was compiled for target {compiled.target!r}, not for {self.name!r}.")
        if compiled.device != self.device:
            raise TargetError(f"This was compiled for {compiled.device}, not for {self.device}.")
        return compiled.reference if isinstance(compiled, Compiled) else compiled.ticket.job_id

    def _made_by(self, job_id: str) -> Any:
        """The client's ``Model`` that a job makes, or will have made."""
        model = self.service.call(f"ask what {job_id} made", self.service.job(job_id).get_target_model)
        if model is None:
            raise TargetError(f"The job {job_id} made no model. See {self.service.url(job_id)}")
        return model

    def _hub_device(self) -> Any:
        import qai_hub

        return qai_hub.Device(name=self.info.name, os=self.info.os)


def _words(*options: str) -> str:
    return " ".join(option.strip() for option in options if option.strip())


def _qairt(offered: dict[str, tuple[str, ...]], asked: str | None) -> str | None:
    """The version that a tag or version stands for; None where the service names no default."""
    tagged = {tag: number for number, tags in offered.items() for tag in tags}
    if asked is None:
        return tagged.get("default")
    if asked not in tagged and asked not in offered:
        raise UnknownNameError("QAIRT version", asked, [*offered, *tagged])
    return tagged.get(asked, asked)
