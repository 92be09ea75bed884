"""The routes under /api/v1, each from a request to a message of the real client."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from qai_hub import public_api_pb2 as pb

from aihub_server import work
from aihub_server.state import DEVICES, RUNNING, Item, Job, Refusal, State, state_number

PART = 8 * 2**20  # bytes of one part of a model's upload
VERSIONS = (("2.31", ("default",)), ("2.34", ("latest",)))
HUB = "aihub-2026.01"


class Api:
    """Answers requests from ``state``. ``store_url`` is the object store's origin."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.store_url = ""
        self.profile_hook: Callable[[Any], None] | None = None  # may change a profile before it is sent
        self.output_hook: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] | None = None

    def answer(self, method: str, path: str, query: str, body: bytes) -> Any:
        """The message that answers; Refusal where the service refuses."""
        given = parse_qs(query)
        for verb, pattern, handler in ROUTES:
            if verb == method and (found := re.fullmatch(pattern, path)):
                return handler(self, *found.groups(), query=given, body=body)
        raise Refusal(f"No such endpoint: {method} {path}", 404)

    # ---- what is there

    def user(self, **_: Any) -> Any:
        return pb.User(id=1, email="tester@example.org")

    def devices(self, query: dict[str, list[str]], **_: Any) -> Any:
        name, wanted = query.get("name", [""])[0], set(query.get("attributes", []))
        found = [
            pb.Device(name=device, os=system, attributes=attributes)
            for device, system, attributes in DEVICES
            if name in ("", device) and wanted <= set(attributes)
        ]
        if query.get("select", [""])[0].lower() == "true":
            found = found[:1]
        return pb.DeviceList(devices=found, total_query_count=len(found))

    def frameworks(self, **_: Any) -> Any:
        return pb.FrameworkList(
            frameworks=[
                pb.Framework(name="QAIRT", api_version=number, api_tags=tags, full_version=f"{number}.0")
                for number, tags in VERSIONS
            ]
        )

    # ---- models and datasets

    def create_model(self, body: bytes, **_: Any) -> Any:
        item = self.state.add_model(pb.Model.FromString(body))
        return _created(item.id, item.created)

    def get_model(self, model_id: str, **_: Any) -> Any:
        return _found(self.state.models, model_id).pb

    def model_upload(self, model_id: str, query: dict[str, list[str]], **_: Any) -> Any:
        parts = max(1, -(-int(query["file_size"][0]) // PART))
        urls = [f"{self.store_url}/models/{model_id}/{part}" for part in range(parts)]
        upload = pb.FileMultipartUploadURL(urls=urls, upload_id=f"upload-{model_id}", max_part_size=PART)
        return pb.FileUploadResponse(multipart_url=upload) if _new(query) else upload

    def model_uploaded(self, model_id: str, body: bytes, **_: Any) -> Any:
        item = _found(self.state.models, model_id)
        count = len(pb.FileMultipartUploadComplete.FromString(body).etags)
        parts = [self.state.folder / f"models-{model_id}-{part}" for part in range(count)]
        if missing := [part.name for part in parts if not part.exists()]:
            raise Refusal(f"InvalidPart: {missing} were not uploaded.")
        item.file = self.state.folder / f"{model_id}.onnx"
        with item.file.open("wb") as whole:
            for part in parts:
                whole.write(part.read_bytes())
                part.unlink()
        item.complete = item.pb.file_upload_complete = True
        return _created(item.id, item.created)

    def create_dataset(self, body: bytes, **_: Any) -> Any:
        item = self.state.add_dataset(pb.Dataset.FromString(body).name)
        answer = _created(item.id, item.created)
        answer.expiration_time.CopyFrom(item.pb.expiration_time)
        return answer

    def get_dataset(self, dataset_id: str, **_: Any) -> Any:
        return _found(self.state.datasets, dataset_id).pb

    def dataset_upload(self, dataset_id: str, query: dict[str, list[str]], **_: Any) -> Any:
        url = pb.FileUploadURL(url=f"{self.store_url}/datasets/{dataset_id}", file_field_name="file")
        url.fields["key"] = dataset_id
        return pb.FileUploadResponse(url=url) if _new(query) else url

    def dataset_uploaded(self, dataset_id: str, **_: Any) -> Any:
        item = _found(self.state.datasets, dataset_id)
        file = self.state.folder / f"datasets-{dataset_id}"
        if not file.exists():
            raise Refusal(f"The data of {dataset_id} was not uploaded.")
        item.file, item.complete, item.pb.file_upload_complete = file, True, True
        return _created(item.id, item.created)

    def dataset_download(self, dataset_id: str, query: dict[str, list[str]], **_: Any) -> Any:
        item = self.state.dataset(_found(self.state.datasets, dataset_id).pb)
        return self._download(item, f"{dataset_id}.h5", query)

    def model_download(self, model_id: str, query: dict[str, list[str]], **_: Any) -> Any:
        item = _found(self.state.models, model_id)
        return self._download(item, f"{item.pb.name}.bin", query)

    def _download(self, item: Item, name: str, query: dict[str, list[str]]) -> Any:
        if item.file is None:
            raise Refusal("It has no file.", 404)
        url = pb.FileDownloadURL(
            url=f"{self.store_url}/{item.file.relative_to(self.state.folder)}", filename=name
        )
        return pb.FileDownloadResponse(url=url) if _new(query) else url

    # ---- jobs

    def create_job(self, body: bytes, **_: Any) -> Any:
        job = self.state.add_job(pb.Job.FromString(body))
        return _created(job.id, job.created)

    def get_job(self, job_id: str, **_: Any) -> Any:
        job = _found(self.state.jobs, job_id)
        self._advance(job)
        return self._message(job)

    def job_result(self, job_id: str, **_: Any) -> Any:
        job = _found(self.state.jobs, job_id)
        if job.state != "DONE":
            raise Refusal(f"Job {job_id} has no result.", 404)
        if job.field == "profile_job":
            return pb.JobResult(profile_job_result=pb.ProfileJobResult(profile=job.result))
        result = pb.InferenceJobResult(inference_job_id=job_id)
        if job.kind == "profile":
            result.detail.CopyFrom(job.result)
        else:
            result.output_dataset_id = job.result
        return pb.JobResult(inference_job_result=result)

    def job_summaries(self, query: dict[str, list[str]], **_: Any) -> Any:
        offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
        newest_first = list(self.state.jobs.values())[::-1]
        answer = pb.JobSummaryList(total_query_count=len(newest_first))
        for job in newest_first[offset : offset + limit]:
            summary = getattr(answer.job_summaries.add(), f"{job.field}_summary")
            summary.job_id, summary.name, summary.job_state = job.id, job.name, state_number(job.state)
            summary.creation_time.FromSeconds(int(job.created))
            if job.kind != "quantize":
                summary.device_name, summary.device_os_version = job.pb.device.name, job.pb.device.os
        return answer

    def shared_access(self, job_id: str, **_: Any) -> Any:
        return pb.SharedAccess(email=_found(self.state.jobs, job_id).shared_with)

    def share(self, job_id: str, body: bytes, **_: Any) -> Any:
        job, change = _found(self.state.jobs, job_id), pb.SharedAccessChange.FromString(body)
        job.shared_with += [email for email in change.add_email if email not in job.shared_with]
        job.shared_with = [email for email in job.shared_with if email not in change.remove_email]
        return pb.CreateUpdateResponse(id=job_id)

    def unshare(self, job_id: str, **_: Any) -> Any:
        _found(self.state.jobs, job_id).shared_with.clear()
        return pb.CreateUpdateResponse(id=job_id)

    def _message(self, job: Job) -> Any:
        message = pb.Job(hub_version=HUB, failure_type=job.failure_type)
        body = getattr(message, job.field)
        body.CopyFrom(job.pb)
        setattr(body, f"{job.field}_id", job.id)
        body.job_state, body.failure_reason = state_number(job.state), job.reason
        body.creation_time.FromSeconds(int(job.created))
        body.model.CopyFrom(self.state.models[job.pb.model.model_id].pb)
        if job.target is not None:
            body.target_model.CopyFrom(job.target.pb)
        if job.kind == "compile" and job.state == "DONE":
            body.target_tensor_type_list.CopyFrom(work.io_message(job.result["inputs"]))
        return message

    def _advance(self, job: Job) -> None:
        """One step further: through its states, and to its end once the job it builds on has ended."""
        if job.ended:
            return
        earlier = self.state.producer(job)
        if earlier is not None:
            self._advance(earlier)
            if not earlier.ended:
                return
        if job.polls_left > 0:
            job.polls_left -= 1
            job.state = RUNNING[job.kind]
            return
        try:
            if earlier is not None and earlier.state == "FAILED":
                raise work.Failure("One or more inputs to this job failed to be produced.", 2003)
            if job.fault is not None:
                raise work.Failure(job.fault.reason, job.fault.failure_type)
            job.result = getattr(self, f"_run_{job.kind}")(job)
            job.state, job.failure_type = "DONE", 1
        except work.Failure as failure:
            job.state, job.reason, job.failure_type = "FAILED", str(failure), failure.failure_type
            return
        if job.target is not None:
            job.target.complete = job.target.pb.file_upload_complete = True

    def _file(self, job: Job) -> Any:
        file = self.state.models[job.pb.model.model_id].file
        assert file is not None
        return work.unpacked(file)

    def _run_compile(self, job: Job) -> dict[str, Any]:
        types = {
            item.name: (tuple(item.tensor_type.shape), _dtype(item.tensor_type.dtype))
            for item in job.pb.tensor_type_list.types
        }
        found = work.compile_model(self._file(job), types, job.pb.options)
        assert job.target is not None
        job.target.file = self._file(job)
        job.target.pb.input_spec.CopyFrom(work.io_message(found["inputs"]))
        job.target.pb.output_spec.CopyFrom(work.io_message(found["outputs"]))
        return found

    def _run_quantize(self, job: Job) -> None:
        data = work.read_h5(self.state.datasets[job.pb.calibration_dataset.dataset_id].file)  # type: ignore[arg-type]
        assert job.target is not None
        job.target.file = self.state.folder / f"{job.target.id}.onnx"
        work.quantize(
            self._file(job), job.target.file, data, job.pb.activations_dtype == pb.QUANTIZE_DTYPE_INT16
        )

    def _run_profile(self, job: Job) -> Any:
        flags = work.options_of(job.pb.options, {"--max_profiler_iterations": 1, "--qairt_version": 1})
        compiled = self._compiled(job)
        detail = work.profile(
            self._file(job), compiled["runtime"], int(flags.get("--max_profiler_iterations", 100))
        )
        if self.profile_hook is not None:
            self.profile_hook(detail)
        return detail

    def _run_inference(self, job: Job) -> str:
        work.options_of(job.pb.options, {"--qairt_version": 1})
        data = work.read_h5(self.state.datasets[job.pb.dataset.dataset_id].file)  # type: ignore[arg-type]
        outputs = work.infer(self._file(job), self._compiled(job)["inputs"], data)
        if self.output_hook is not None:
            outputs = self.output_hook(outputs)
        item = self.state.add_dataset(f"outputs-of-{job.id}")
        item.file = self.state.folder / f"datasets-{item.id}"
        item.file.write_bytes(
            work.h5_bytes({name: list(map(np.asarray, found)) for name, found in outputs.items()})
        )
        item.complete = True
        return item.id

    def _compiled(self, job: Job) -> Any:
        return self.state.jobs[self.state.models[job.pb.model.model_id].pb.producer_id].result


def _created(identity: str, created: float) -> Any:
    answer = pb.CreateUpdateResponse(id=identity)
    answer.creation_time.FromSeconds(int(created or time.time()))
    return answer


def _found(things: dict[str, Any], identity: str) -> Any:
    if identity not in things:
        raise Refusal("Not found.", 404)
    return things[identity]


def _new(query: dict[str, list[str]]) -> bool:
    """Clients from 0.56 say so, and get the answer in an envelope."""
    return "supports_s3_credentials" in query


def _dtype(number: int) -> str:
    return str(pb.TensorDtype.Name(number)).removeprefix("TENSOR_DTYPE_").lower()


ID = r"([a-z]\d+)"
ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", "users/auth/user/", Api.user),
    ("GET", "devices/", Api.devices),
    ("GET", "frameworks/", Api.frameworks),
    ("POST", "models/", Api.create_model),
    ("GET", f"models/{ID}/", Api.get_model),
    ("GET", f"models/{ID}/multipart_upload/", Api.model_upload),
    ("POST", f"models/{ID}/multipart_upload/", Api.model_uploaded),
    ("GET", f"models/{ID}/download/", Api.model_download),
    ("POST", "datasets/", Api.create_dataset),
    ("GET", f"datasets/{ID}/", Api.get_dataset),
    ("GET", f"datasets/{ID}/upload_url/", Api.dataset_upload),
    ("PATCH", f"datasets/{ID}/", Api.dataset_uploaded),
    ("GET", f"datasets/{ID}/download_data/", Api.dataset_download),
    ("POST", "jobs/", Api.create_job),
    ("GET", f"jobs/{ID}/", Api.get_job),
    ("GET", f"jobs/{ID}/result/", Api.job_result),
    ("GET", "job_summaries/", Api.job_summaries),
    ("GET", f"jobs/{ID}/shared_access/", Api.shared_access),
    ("PATCH", f"jobs/{ID}/shared_access/", Api.share),
    ("DELETE", f"jobs/{ID}/shared_access/", Api.unshare),
)
