"""The AI Hub target against the loopback service, through the real client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aihub_models
import numpy as np
import onnx
import onnxruntime
import pytest
import requests
from aihub_server import TOKEN, AIHubServer, Fault

from lpcvc_zoo.errors import MissingExtraError, TargetError, UnknownNameError
from lpcvc_zoo.targets.aihub import AIHubTarget, Patience, ServiceUnavailableError
from lpcvc_zoo.targets.base import AsyncTarget
from lpcvc_zoo.targets.references import JobFailedError, JobRunningError, parse_reference, until_done

QUICK = Patience(tries=4, first_s=0.001, most_s=0.002)


def target(**options: Any) -> AIHubTarget:
    return AIHubTarget(**({"patience": QUICK, "poll_s": 0.001} | options))


def in_onnxruntime(file: Path, inputs: dict[str, Any], axis: int) -> Any:
    session = onnxruntime.InferenceSession(str(file))
    (name,) = inputs
    parts = np.split(inputs[name], inputs[name].shape[axis], axis=axis)
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def kinds(hub: AIHubServer) -> list[str]:
    return [job.kind for job in hub.jobs]


# ---- the straight road


def test_a_tower_is_compiled_measured_and_run(hub: AIHubServer, tmp_path: Path) -> None:
    hub.state.slow = 2
    where, file = target(), aihub_models.image_tower(tmp_path)
    assert isinstance(where, AsyncTarget)
    compiled = where.compile(file, "image")
    profile = where.profile(compiled)
    outputs = where.infer(compiled, aihub_models.images(3))
    expected = in_onnxruntime(file, aihub_models.images(3), 0)
    np.testing.assert_array_equal(outputs["image_embedding"], expected)
    assert profile.latency is not None
    assert len(profile.latency.iterations_ms) == 100
    assert profile.device == "XR2 Gen 2 (Proxy)"
    assert profile.layers_by_unit == {"NPU": 2}
    assert profile.operators is not None
    assert [item.type for item in profile.operators] == ["Flatten", "MatMul"]
    size = file.stat().st_size
    assert profile.peak_memory_range_bytes == (size, 2 * size)
    assert profile.load_ms == (100_000 + size // 100) / 1000
    assert profile.job_url == f"{hub.url}/jobs/{profile.job_id}/"
    assert profile.runtime_versions["QAIRT"] == "2.31"


def test_texts_are_cut_along_their_second_axis(hub: AIHubServer, tmp_path: Path) -> None:
    where, file = target(), aihub_models.text_tower(tmp_path)
    outputs = where.infer(where.compile(file, "text"), aihub_models.texts(4))
    expected = in_onnxruntime(file, aihub_models.texts(4), 1)
    np.testing.assert_array_equal(outputs["text_embedding"], expected)


def test_64_bit_inputs_are_compiled_and_given_as_32_bits(hub: AIHubServer, tmp_path: Path) -> None:
    where, file = target(), aihub_models.text_tower(tmp_path, wide=True)
    compiled = where.compile(file, "text")
    outputs = where.infer(compiled, aihub_models.texts(2, wide=True))
    assert "--truncate_64bit_io" in hub.jobs[0].pb.options
    expected = in_onnxruntime(file, aihub_models.texts(2, wide=True), 1)
    np.testing.assert_array_equal(outputs["text_embedding"], expected)


def test_weights_in_a_file_beside_the_model_go_up_with_it(hub: AIHubServer, tmp_path: Path) -> None:
    plain = aihub_models.image_tower(tmp_path)
    beside = tmp_path / "beside" / "image.onnx"
    beside.parent.mkdir()
    onnx.save(onnx.load(plain), beside, save_as_external_data=True, location="w.bin", size_threshold=0)
    where = target()
    outputs = where.infer(where.compile(beside, "image"), aihub_models.images(2))
    expected = in_onnxruntime(plain, aihub_models.images(2), 0)
    np.testing.assert_array_equal(outputs["image_embedding"], expected)


def test_a_large_batch_goes_in_several_jobs(
    hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpcvc_zoo.targets.aihub.target.MOST_UPLOAD_BYTES", 2 * 48 * 4)
    where, file = target(), aihub_models.image_tower(tmp_path)
    outputs = where.infer(where.compile(file, "image"), aihub_models.images(5))
    assert kinds(hub).count("inference") == 3
    expected = in_onnxruntime(file, aihub_models.images(5), 0)
    np.testing.assert_array_equal(outputs["image_embedding"], expected)


# ---- one key, one job


def test_what_was_submitted_is_found_again_by_any_later_target(hub: AIHubServer, tmp_path: Path) -> None:
    file = aihub_models.image_tower(tmp_path)
    first = target().compile(file, "image")
    requests = len([line for line in hub.seen if line.startswith("POST")])
    again = target()
    assert again.compile(file, "image") == first
    assert len([line for line in hub.seen if line.startswith("POST")]) == requests
    again.profile(first)
    target().profile(first)
    assert kinds(hub) == ["compile", "profile"]


def test_a_job_that_is_gone_is_sent_again_once_its_record_is_removed(
    hub: AIHubServer, tmp_path: Path
) -> None:
    file = aihub_models.image_tower(tmp_path)
    target().compile(file, "image")
    hub.state.jobs.clear()
    with pytest.raises(TargetError, match=r"could not be found.* remove that file") as caught:
        target().submit_compile(file, "image")
    assert hub.jobs == []
    (record,) = (tmp_path / "cache" / "aihub").rglob("jobs/*.json")
    assert str(record) in str(caught.value)
    record.unlink()
    target().compile(file, "image")
    assert kinds(hub) == ["compile"]


def test_other_content_device_options_or_series_are_other_jobs(hub: AIHubServer, tmp_path: Path) -> None:
    file = aihub_models.image_tower(tmp_path)
    ways: list[Callable[[], Any]] = [
        lambda: target().submit_compile(file, "image"),
        lambda: target().submit_compile(aihub_models.image_tower(tmp_path, 1), "image"),
        lambda: target(device="Samsung Galaxy S24").submit_compile(file, "image"),
        lambda: target(runtime="onnx").submit_compile(file, "image"),
        lambda: target(qairt_version="latest").submit_compile(file, "image"),
        lambda: target(series="again").submit_compile(file, "image"),
    ]
    for _ in range(2):
        references = [way() for way in ways]
    assert len({reference.key for reference in references}) == len(ways) == len(hub.jobs)
    assert len(hub.state.models) == 2 + len(ways)  # two uploads, and what the jobs make


def test_a_reference_survives_as_text_and_is_collected_elsewhere(hub: AIHubServer, tmp_path: Path) -> None:
    hub.state.slow = 30
    where = target()
    compiling = where.submit_compile(aihub_models.image_tower(tmp_path), "image")
    kept = [
        reference.model_dump_json()
        for reference in (
            compiling,
            where.submit_profile(compiling),
            where.submit_infer(compiling, aihub_models.images(2)),
        )
    ]
    later = target()
    references = [parse_reference(text) for text in kept]
    assert [later.state(reference) for reference in references] == ["running"] * 3
    compiled, profile, outputs = (later.collect(reference) for reference in references)
    assert [later.state(reference) for reference in references] == ["done"] * 3
    assert compiled.reference == compiling.ticket.job_id
    assert profile.latency
    assert outputs["image_embedding"].shape == (2, aihub_models.DIM)
    assert len(hub.jobs) == 3


def test_a_job_that_takes_too_long_goes_on(hub: AIHubServer, tmp_path: Path) -> None:
    hub.state.slow = 10**6
    where = target(timeout_s=0.01)
    with pytest.raises(JobRunningError, match=r"not done after .*collect it later.*j00000002"):
        where.compile(aihub_models.image_tower(tmp_path), "image")
    hub.jobs[0].polls_left = 0
    where.compile(aihub_models.image_tower(tmp_path), "image")
    assert len(hub.jobs) == 1


def test_expired_datasets_are_uploaded_again(hub: AIHubServer, tmp_path: Path) -> None:
    where = target()
    compiled = where.compile(aihub_models.image_tower(tmp_path), "image")
    where.infer(compiled, aihub_models.images(2))
    uploads = [item for item in hub.state.datasets.values() if item.pb.name.startswith("lpcvc-zoo-data")]
    for item in list(hub.state.datasets):
        hub.state.expire(item)
    other = where.compile(aihub_models.image_tower(tmp_path, 1), "image")
    where.infer(other, aihub_models.images(2))
    names = [item.pb.name for item in hub.state.datasets.values()]
    assert names.count(uploads[0].pb.name) == 2
    outputs = target().infer(compiled, aihub_models.images(2))  # these had expired too: run again
    assert outputs["image_embedding"].shape == (2, aihub_models.DIM)
    assert kinds(hub) == ["compile", "inference", "compile", "inference", "inference"]


# ---- failures


ACCEPTED = "POST /api/v1/jobs/"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ACCEPTED),
        Fault(ACCEPTED, after=True),
        Fault(ACCEPTED, status=429),
        Fault(ACCEPTED, status=503, times=2),
        Fault(ACCEPTED, status=503, after=True),
        Fault(ACCEPTED, wrong_id=True),
        Fault("GET /api/v1/jobs/", status=500, times=3),
        Fault("GET /api/v1/jobs/"),
        Fault("PUT /models/", times=2),
        Fault("PUT /models/", status=503),
        Fault("POST /datasets/"),
        Fault("POST /api/v1/datasets/", status=502),
        Fault("/multipart_upload/", after=True),
        Fault("/multipart_upload/", status=503, times=2),
        Fault("/result/", status=504),
        Fault("GET /datasets"),
    ],
    ids=lambda fault: f"{fault.match} {fault.status} after={fault.after} wrong={fault.wrong_id}",
)
def test_what_passes_is_waited_out_and_submits_nothing_twice(
    hub: AIHubServer, tmp_path: Path, fault: Fault
) -> None:
    older = target().submit_compile(aihub_models.text_tower(tmp_path), "text")
    hub.faults.append(fault)
    where = target()
    compiled = where.compile(aihub_models.image_tower(tmp_path), "image")
    where.profile(compiled)
    where.infer(compiled, aihub_models.images(2))
    assert fault.times == 0
    assert compiled.reference != older.ticket.job_id
    assert kinds(hub) == ["compile", "compile", "profile", "inference"]


def test_a_refusal_after_acceptance_loses_no_job(hub: AIHubServer, tmp_path: Path) -> None:
    """The client asks for the job it has just created; the token may expire between the two."""
    hub.faults.append(Fault("GET /api/v1/jobs/", status=401))
    where, file = target(), aihub_models.image_tower(tmp_path)
    with pytest.raises(TargetError, match="authenticate"):
        where.submit_compile(file, "image")
    where.compile(file, "image")
    assert kinds(hub) == ["compile"]


def test_a_job_is_found_among_those_of_a_kind_that_the_client_does_not_know(
    hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hub.api.answer

    def with_another(method: str, path: str, query: str, body: bytes) -> Any:
        found = right(method, path, query, body)
        if path == "job_summaries/" and "offset" not in query:
            found.job_summaries.add().MergeFromString(bytes([0xFA, 0x06, 0x00]))  # field 111, empty
        return found

    monkeypatch.setattr(hub.api, "answer", with_another)
    hub.faults.append(Fault(ACCEPTED, after=True))
    target().compile(aihub_models.image_tower(tmp_path), "image")
    assert kinds(hub) == ["compile"]


@pytest.mark.parametrize(
    ("kind", "passes"), [("MissingSchema", False), ("InvalidHeader", False), ("JSONDecodeError", True)]
)
def test_an_address_that_is_wrong_is_not_tried_again(hub: AIHubServer, kind: str, passes: bool) -> None:
    details = ("no", "{", 0) if kind == "JSONDecodeError" else ("no",)
    tried: list[None] = []

    def fail() -> None:
        tried.append(None)
        raise getattr(requests.exceptions, kind)(*details)

    where = target()
    with pytest.raises(TargetError) as caught:
        where.service.call("try", fail)
    assert isinstance(caught.value, ServiceUnavailableError) == passes == (len(tried) > 1)


@pytest.mark.parametrize("url", ["app.aihub.qualcomm.com", "https://", "file:///tmp"])
def test_a_configured_address_that_is_none_is_refused(hub: AIHubServer, tmp_path: Path, url: str) -> None:
    file = hub.ini(tmp_path)
    file.write_text(file.read_text().replace(f"api_url = {hub.url}", f"api_url = {url}"))
    with pytest.raises(TargetError, match=r"api_url that is no address: expected https://"):
        target()


def test_the_service_away_for_long_is_an_error_that_says_so(hub: AIHubServer, tmp_path: Path) -> None:
    where = target()
    hub.faults.append(Fault("jobs/", status=503, times=10**6))
    with pytest.raises(ServiceUnavailableError, match="Nothing that was submitted is lost"):
        where.compile(aihub_models.image_tower(tmp_path), "image")


@pytest.mark.parametrize("kind", ["compile", "profile", "inference"])
def test_a_job_that_the_device_failed_is_tried_again(hub: AIHubServer, tmp_path: Path, kind: str) -> None:
    hub.fail_jobs(kind, "The device timed out.", 12000, times=2)
    where = target()
    compiled = where.compile(aihub_models.image_tower(tmp_path), "image")
    where.profile(compiled)
    where.infer(compiled, aihub_models.images(2))
    assert kinds(hub).count(kind) == 3
    assert hub.state.duplicates() == []


def test_one_that_always_fails_so_ends_as_an_error(hub: AIHubServer, tmp_path: Path) -> None:
    hub.fail_jobs("compile", "The device timed out.", 12000, times=10**6)
    with pytest.raises(JobFailedError, match=r"The device timed out\..*--target_runtime qnn_dlc.*/jobs/"):
        target().compile(aihub_models.image_tower(tmp_path), "image")
    assert len(hub.jobs) == 3


def test_asking_about_a_failed_job_again_and_again_comes_to_an_end(hub: AIHubServer, tmp_path: Path) -> None:
    hub.fail_jobs("compile", "The device timed out.", 12000)
    where = target()
    reference = where.submit_compile(aihub_models.image_tower(tmp_path), "image")
    with pytest.raises(JobFailedError) as caught:
        until_done(lambda: where.collect(reference))
    assert not caught.value.transient


def test_a_model_that_does_not_compile_is_not_tried_again(hub: AIHubServer, tmp_path: Path) -> None:
    hub.fail_jobs("compile", "Op Foo is not supported.", 13003)
    file = aihub_models.image_tower(tmp_path)
    where = target()
    for _ in range(2):
        with pytest.raises(JobFailedError, match="Op Foo is not supported") as caught:
            where.compile(file, "image")
        assert caught.value.url == f"{hub.url}/jobs/{hub.jobs[0].id}/"
    assert len(hub.jobs) == 1


def test_a_profile_of_what_failed_to_compile_names_the_first_cause(hub: AIHubServer, tmp_path: Path) -> None:
    hub.fail_jobs("compile", "Op Foo is not supported.", 13003)
    where = target()
    compiling = where.submit_compile(aihub_models.image_tower(tmp_path), "image")
    profiling = where.submit_profile(compiling)
    with pytest.raises(JobFailedError, match="Op Foo is not supported"):
        where.collect(profiling)
    assert where.state(profiling) == "failed"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda array: array * np.nan, "NaN or infinite in 2 of 2 samples"),
        (lambda array: array * 0 + 3, "one number all over"),
        (lambda array: array * 0 + np.arange(4, dtype=np.float32), "the same for all 2 samples"),
    ],
)
def test_a_dead_tower_is_an_error_that_says_so(
    hub: AIHubServer, tmp_path: Path, spoil: Callable[[Any], Any], message: str
) -> None:
    hub.api.output_hook = lambda outputs: {
        name: [spoil(array) for array in arrays] for name, arrays in outputs.items()
    }
    where = target()
    compiled = where.compile(aihub_models.image_tower(tmp_path), "image")
    with pytest.raises(TargetError, match=message):
        where.infer(compiled, aihub_models.images(2))


def spoilt_profile(detail: Any, how: str) -> None:
    if how == "no memory":
        detail.ClearField("execution_memory")
    elif how == "memory backwards":
        detail.execution_memory.peak.lower = 2 * detail.execution_memory.peak.upper
    elif how == "no iterations":
        detail.ClearField("all_execution_times")
    elif how == "zero iterations":
        detail.all_execution_times[:] = [0] * 5
    elif how == "unit nobody knows":
        detail.layer_details[0].compute_unit = 0
    elif how == "layers without times":
        for layer in detail.layer_details:
            layer.ClearField("execution_time")
    elif how == "old format":
        detail.major_version = detail.minor_version = 0


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("no memory", {"peak_memory_range_bytes": None}),
        ("memory backwards", {"peak_memory_range_bytes": None}),
        ("no iterations", {"estimated_ms": 0.004}),
        ("zero iterations", {"estimated_ms": 0.004}),
        ("unit nobody knows", {"layers_by_unit": {"NPU": 1, "unknown": 1}}),
        ("layers without times", {"layers_by_unit": {"NPU": 2}}),
        ("old format", {"warm_load_ms": None, "peak_memory_bytes": None}),
    ],
)
def test_what_a_profile_lacks_stays_unknown(
    hub: AIHubServer, tmp_path: Path, how: str, expected: dict[str, Any]
) -> None:
    hub.api.profile_hook = lambda detail: spoilt_profile(detail, how)
    where = target()
    profile = where.profile(where.compile(aihub_models.image_tower(tmp_path), "image"))
    assert profile.latency is not None
    assert profile.latency.median_ms > 0
    assert {name: getattr(profile, name) for name in expected} == expected


def test_a_profile_without_any_time_is_an_error(hub: AIHubServer, tmp_path: Path) -> None:
    def without(detail: Any) -> None:
        detail.execution_time = 0
        detail.ClearField("all_execution_times")

    hub.api.profile_hook = without
    where = target()
    with pytest.raises(TargetError, match="gave no inference time"):
        where.profile(where.compile(aihub_models.image_tower(tmp_path), "image"))


def test_sharing_survives_a_busy_service(hub: AIHubServer, tmp_path: Path) -> None:
    where = target()
    job = where.submit_compile(aihub_models.image_tower(tmp_path), "image").ticket.job_id
    hub.faults += [Fault("PATCH /api/v1/jobs/", status=503), Fault("PATCH /api/v1/jobs/", after=True)]
    where.service.share(job, ["someone@example.org"])
    assert where.service.shared_with(job) == ("someone@example.org",)
    where.service.unshare(job, ["someone@example.org"])
    assert where.service.shared_with(job) == ()


# ---- before anything is sent


def test_what_can_not_work_is_refused_before_anything_is_sent(hub: AIHubServer) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"device": "RB3 Gen 2 (Proxy)"}, TargetError, "computes integers only: use the precision w8a16"),
        ({"device": "Samsung Galaxy Tab S8"}, TargetError, "needs the framework 'qnn'"),
        ({"device": "Snapdragon X Elite CRD", "runtime": "tflite"}, TargetError, "qnn_dlc"),
        ({"device": "Samsung Galaxy S42"}, UnknownNameError, "Did you mean 'Samsung Galaxy S2"),
        ({"runtime": "qnn_dcl"}, UnknownNameError, "Did you mean 'qnn_dlc'"),
        ({"precision": "w8a17"}, UnknownNameError, "w8a16"),
        ({"precision": "w8a8"}, TargetError, "needs calibration"),
        ({"qairt_version": "9.9"}, UnknownNameError, "QAIRT version"),
        ({"iterations": 0}, TargetError, "1 or more"),
        ({"compile_options": "--target_runtime onnx"}, TargetError, "by name"),
    ]
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            target(**options)
    assert not [line for line in hub.seen if not line.startswith("GET")]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("qualcomm-snapdragon-8gen3", "Samsung Galaxy S24"),
        ("hexagon:v75", "Samsung Galaxy S24"),
        ("all-phones", "Samsung Galaxy S24"),
        ("Samsung Galaxy S23", "Samsung Galaxy S23"),
    ],
)
def test_a_device_is_found_by_name_chipset_attribute_or_group(
    hub: AIHubServer, query: str, name: str
) -> None:
    assert target(device=query).device == name


def test_the_token_is_in_no_message_and_no_file(hub: AIHubServer, tmp_path: Path) -> None:
    where = target()
    hub.token = "another"
    with pytest.raises(TargetError, match="authenticate") as caught:
        where.compile(aihub_models.image_tower(tmp_path), "image")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(where.fingerprint())
    hub.token = TOKEN
    hub.faults.append(Fault("jobs/", status=400, detail=f"what is {TOKEN}?"))
    with pytest.raises(TargetError, match=r"what is \(token\)\?"):
        where.compile(aihub_models.image_tower(tmp_path), "image")
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    assert all(TOKEN not in path.read_text() for path in kept)


@pytest.mark.parametrize(
    "token", ["first-half\n  second-half", "two words", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(
    hub: AIHubServer, tmp_path: Path, token: str
) -> None:
    hub.ini(tmp_path, token)
    with pytest.raises(TargetError, match="expected one word, on one line") as caught:
        target()
    assert not any(part in str(caught.value) for part in token.split())


def test_a_token_is_hidden_in_quotes_too(hub: AIHubServer, tmp_path: Path) -> None:
    hub.token = "back\\slash"
    hub.ini(tmp_path, hub.token)
    where = target()
    hub.faults.append(Fault("jobs/", status=400, detail=f"what is {hub.token}?"))
    with pytest.raises(TargetError, match=r"what is \(token\)\?"):
        where.compile(aihub_models.image_tower(tmp_path), "image")


def test_without_configuration_or_client_it_says_what_to_do(
    hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "none.ini"))
    with pytest.raises(TargetError, match="qai-hub configure"):
        target()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TargetError, match=r"team\.ini.*qai-hub configure --profile team --api_token"):
        target(account="team")
    broken = tmp_path / "broken.ini"
    broken.write_text(f"[api]\napi_token {TOKEN}\n")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(broken))
    with pytest.raises(TargetError, match="qai-hub configure") as caught:
        target()
    assert TOKEN not in str(caught.value)
    monkeypatch.setattr("lpcvc_zoo.targets.aihub.config.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lpcvc-zoo\[aihub\]"):
        target()
