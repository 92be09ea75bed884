"""What the service holds: devices, models, datasets, jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qai_hub import public_api_pb2 as pb

from aihub_server.faults import JobFault, take

DAYS_30 = 30 * 86_400
FP16 = "htp-supports-fp16:true"
QNN, TFLITE, ONNX = "framework:qnn", "framework:tflite", "framework:onnx"
ALL = (QNN, TFLITE, ONNX)
DEVICES: tuple[tuple[str, str, tuple[str, ...]], ...] = (  # name, system, attributes
    ("XR2 Gen 2 (Proxy)", "13", ("chipset:qualcomm-xr2gen2", "hexagon:v69", FP16, "format:xr", *ALL)),
    ("Samsung Galaxy S23", "13",
     ("chipset:qualcomm-snapdragon-8gen2", "hexagon:v73", FP16, "format:phone", *ALL)),
    ("Samsung Galaxy S24", "14",
     ("chipset:qualcomm-snapdragon-8gen3", "hexagon:v75", FP16, "format:phone", *ALL)),
    ("Snapdragon X Elite CRD", "11",
     ("chipset:qualcomm-snapdragon-x-elite", "hexagon:v73", FP16, "format:compute", QNN, ONNX)),
    ("RB3 Gen 2 (Proxy)", "14", ("chipset:qualcomm-qcs6490", "hexagon:v68", "format:iot", *ALL)),
    ("Samsung Galaxy Tab S8", "12",
     ("chipset:qualcomm-snapdragon-8gen1", "hexagon:v69", FP16, "format:tablet", TFLITE, ONNX)),
)  # fmt: skip
RUNNING = {
    "compile": "OPTIMIZING_MODEL",
    "quantize": "QUANTIZING_MODEL",
    "profile": "MEASURING_PERFORMANCE",
    "inference": "RUNNING_INFERENCE",
}


def state_number(name: str) -> int:
    return int(pb.JobState.Value(f"JOB_STATE_{name}"))


class Refusal(Exception):
    """An answer of 400 or the like, with the service's text."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


@dataclass
class Item:
    """A model or dataset. ``file``: its bytes; of a compiled model, the ONNX file it was made from."""

    id: str
    pb: Any
    created: float
    file: Path | None = None
    complete: bool = False


@dataclass
class Job:
    """``field``: the message it came as ("profile_job" of old clients is an "inference_job" of new ones)."""

    id: str
    kind: str
    field: str
    pb: Any
    created: float
    target: Item | None = None
    state: str = "CREATED"
    reason: str = ""
    failure_type: int = 0
    polls_left: int = 0
    fault: JobFault | None = None
    result: Any = None
    shared_with: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.pb.name)

    @property
    def ended(self) -> bool:
        return self.state in ("DONE", "FAILED")


class State:
    """Everything behind the API; calls are made under one lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, Item] = {}
        self.datasets: dict[str, Item] = {}
        self.jobs: dict[str, Job] = {}
        self.job_faults: list[JobFault] = []
        self.slow = 0  # how often a job is found unfinished
        self._count = 0

    def new_id(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count:08d}"

    def add_model(self, message: Any, producer: str = "") -> Item:
        item = Item(self.new_id("m"), message, time.time())
        message.model_id, message.producer_id = item.id, producer
        self.models[item.id] = item
        return item

    def add_dataset(self, name: str) -> Item:
        item = Item(self.new_id("d"), pb.Dataset(name=name), time.time())
        item.pb.dataset_id = item.id
        item.pb.expiration_time.FromSeconds(int(item.created) + DAYS_30)
        self.datasets[item.id] = item
        return item

    def expire(self, dataset_id: str) -> None:
        self.datasets[dataset_id].pb.expiration_time.FromSeconds(int(time.time()) - 60)

    def model(self, message: Any) -> Item:
        if message.model_id not in self.models:
            raise Refusal(f"Model {message.model_id!r} does not exist.")
        return self.models[message.model_id]

    def dataset(self, message: Any) -> Item:
        item = self.datasets.get(message.dataset_id)
        if item is None or not item.complete:
            raise Refusal(f"Dataset {message.dataset_id!r} does not exist.")
        if item.pb.expiration_time.seconds < time.time():
            raise Refusal(f"Dataset {item.id} has expired.")
        return item

    def add_job(self, message: Any) -> Job:
        name = message.WhichOneof("job")
        body = getattr(message, name)
        kind = name.removesuffix("_job")
        if kind == "inference" and body.is_profiling_on and not body.dataset.dataset_id:
            kind = "profile"
        source = self.model(body.model)
        if kind in ("compile", "quantize") and not source.complete and not source.pb.producer_id:
            raise Refusal(f"Model {source.id} has not been uploaded completely.")
        if kind == "inference":
            self.dataset(body.dataset)
        if kind == "quantize":
            self.dataset(body.calibration_dataset)
        if kind == "compile":
            body.device.CopyFrom(body.devices.devices[0])
        job = Job(self.new_id("j"), kind, name, body, time.time(), polls_left=self.slow)
        job.fault = take(self.job_faults, lambda fault: fault.kind == kind)
        if kind in ("compile", "quantize"):
            dlc = pb.MODEL_TYPE_QNN_DLC if kind == "compile" else pb.MODEL_TYPE_ONNX
            job.target = self.add_model(pb.Model(name=f"{source.pb.name}_{kind}d", model_type=dlc), job.id)
        self.jobs[job.id] = job
        return job

    def producer(self, job: Job) -> Job | None:
        """The job that makes what this one works on."""
        return self.jobs.get(self.models[job.pb.model.model_id].pb.producer_id)

    def meaning(self, job: Job) -> tuple[object, ...]:
        """All that a job asks for, whatever it is called and however often its files were sent.

        Names of uploads hold the hash of what is in them.
        """
        earlier, asked = self.producer(job), job.pb
        source = self.models[asked.model.model_id].pb.name if earlier is None else self.meaning(earlier)
        data = asked.calibration_dataset if job.kind in ("compile", "quantize") else asked.dataset
        given = self.datasets[data.dataset_id].pb.name if data.dataset_id else ""
        device = "" if job.kind == "quantize" else asked.device.name
        return (job.kind, device, asked.options, source, given)

    def lost(self, job: Job) -> bool:
        """Whether a job failed, or is to work on what was not made."""
        earlier = self.producer(job)
        return job.state == "FAILED" or (earlier is not None and self.lost(earlier))

    def duplicates(self) -> list[list[Job]]:
        """Jobs that mean the same, of which more than one is not lost."""
        groups: dict[tuple[object, ...], list[Job]] = {}
        for job in self.jobs.values():
            if not self.lost(job):
                groups.setdefault(self.meaning(job), []).append(job)
        return [group for group in groups.values() if len(group) > 1]

    def forgotten(self) -> list[Job]:
        """Jobs that nobody asked about until they ended."""
        return [job for job in self.jobs.values() if not job.ended and not self.lost(job)]
