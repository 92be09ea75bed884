"""Handing in, against the loopback service: looked at closely, shared once, bundled for others to score."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import aihub_sweep
import foreign
import numpy as np
import pytest
from aihub_server import TOKEN, AIHubServer, Fault
from PIL import Image
from rows import row as made_up_row
from sweep_fakes import FakeTarget
from test_cli import command, from_json
from tiny import two_photos

from lpcvc_zoo import adopt, evaluate, get_contract
from lpcvc_zoo.bench.artifacts import artifact_cells
from lpcvc_zoo.bench.ledger import Ledger
from lpcvc_zoo.contract import ORGANISERS, TOWERS, Tower
from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.errors import SubmissionError, TargetError, UnknownNameError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.submission import bundled_evaluate, find_row, reference_ms, review, write_bundle
from lpcvc_zoo.submission.review import _budget

SAMPLE = get_contract("lpcvc2026_sample")
CONTRACT = ["--contract", "lpcvc2026_sample"]
MINE = "me@example.org"
SHARING = "/shared_access/"


@pytest.fixture
def pair(hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.chdir(tmp_path)
    image = foreign.image_tower(tmp_path / "i.onnx")
    return adopt(image, foreign.text_tower(tmp_path / "t.onnx"), tmp_path / "pair", contract=SAMPLE)


def compiled(artifact: Artifact) -> list[str]:
    target = aihub_sweep.target()
    return [target.compile(artifact.path(tower), tower).reference for tower in ("image", "text")]


def shared(hub: AIHubServer) -> dict[str, list[str]]:
    return {job.id: job.shared_with for job in hub.jobs if job.shared_with}


def checks(found: dict[str, Any]) -> dict[str, bool | None]:
    return {check["name"]: check["passed"] for check in found["review"]["checks"]}


def patches(hub: AIHubServer) -> list[str]:
    return [line for line in hub.seen if line.startswith("PATCH") and SHARING in line]


# ---- looking


def test_a_dry_run_checks_everything_and_shares_nothing(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    jobs = compiled(pair)
    status, out, _ = command(capsys, "submit", *jobs, *CONTRACT)
    assert status == 0
    text = " ".join(out.split())
    for part in (
        "image float32 [1, 3, 224, 224]", "text int32 [1, 77]", "finite, of unit length", "of 35 ms",
        "not measured; --dataset", f"Nothing was shared. With --yes both jobs are shared with {ORGANISERS}",
    ):  # fmt: skip
        assert part in text
    assert shared(hub) == {}
    before = len(hub.jobs)
    assert from_json(capsys, "submit", *jobs, *CONTRACT)["ready"] is True
    assert len(hub.jobs) == before  # the same samples and profiles are not run twice
    assert not Path("submissions").exists()


def test_recall_is_measured_on_the_device_where_asked_for(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    data = two_photos(Path("two photos").resolve())
    found = from_json(capsys, "submit", *compiled(pair), *CONTRACT, "--dataset", str(data))
    expected = evaluate(pair, data).recall(10)
    assert found["review"]["recall"] == expected.model_dump(mode="json")
    assert found["review"]["dataset"] == "two photos"


def test_towers_with_another_boundary_do_not_pass(hub: AIHubServer, pair: Artifact, capsys: Any) -> None:
    target = aihub_sweep.target()
    raw = foreign.image_tower(Path("raw.onnx"), shape=(1, 3, 224, 224))
    wrong = target.compile(raw, "image").reference
    image, text = compiled(pair)
    assert command(capsys, "submit", wrong, text, *CONTRACT, "--yes")[0] == 1
    status, out, _ = command(capsys, "submit", wrong, text, *CONTRACT)
    assert status == 1
    assert "expected image float32 [1, 3, 224, 224], got pixel_values float32" in " ".join(out.split())
    status, out, _ = command(capsys, "submit", text, image, *CONTRACT)
    assert (status, "got text int32 [1, 77]" in " ".join(out.split())) == (1, True)
    status, out, _ = command(capsys, "submit", image, text)  # the other contract
    assert (status, "expected image float32 [1, 3, 1024, 1024]" in " ".join(out.split())) == (1, True)
    assert shared(hub) == {}
    assert not Path("submissions").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda array: array * float("nan"), "NaN or infinite"),
        (lambda array: array * 2, "expected 1 in every row"),
        (lambda array: array.reshape(-1), "expected [N, D]"),
    ],
    ids=["nan", "length", "shape"],
)
def test_what_a_device_gives_decides(
    hub: AIHubServer, pair: Artifact, capsys: Any, spoil: Any, said: str
) -> None:
    hub.api.output_hook = lambda outputs: {
        name: [spoil(array) for array in arrays] for name, arrays in outputs.items()
    }
    jobs = compiled(pair)
    found = json.loads(command(capsys, "submit", *jobs, *CONTRACT, "--json")[1])
    assert found["ready"] is False
    assert checks(found)["image output"] is False
    details = [check["detail"] for check in found["review"]["checks"] if check["name"] == "text output"]
    assert said in details[0]
    status, _, err = command(capsys, "submit", *jobs, *CONTRACT, "--yes")
    assert (status, "Nothing was shared, because checks failed: image output" in err) == (1, True)
    assert shared(hub) == {}


def test_too_slow_a_pair_is_not_shared_unless_the_budget_is_another(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    def slow(detail: Any) -> None:
        detail.all_execution_times[:] = [20_000] * len(detail.all_execution_times)

    hub.api.profile_hook = slow
    jobs = compiled(pair)
    status, _, err = command(capsys, "submit", *jobs, *CONTRACT, "--yes")
    assert (status, "40.00 ms (image 20.00, text 20.00) of 35 ms" in err) == (1, True)
    assert shared(hub) == {}
    assert command(capsys, "submit", *jobs, *CONTRACT, "--yes", "--budget", "40")[0] == 0
    assert shared(hub) == {job: [ORGANISERS] for job in jobs}


def test_jobs_that_are_none_failed_or_of_another_device_are_told_apart(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    target = aihub_sweep.target()
    image, text = compiled(pair)
    compiling = target.submit_compile(pair.path("image"), "image")
    profiling = target.submit_profile(compiling).ticket.job_id
    _, _, err = command(capsys, "submit", profiling, text, *CONTRACT)
    assert "expected the compile job of the image tower" in err
    assert "could not be found" in command(capsys, "submit", "j99999999", text, *CONTRACT)[2]
    assert "Expected two compile job ids" in command(capsys, "submit", image, image)[2]
    other = aihub_sweep.target(device="Samsung Galaxy S24").compile(pair.path("image"), "image").reference
    found = json.loads(command(capsys, "submit", other, text, *CONTRACT, "--json")[1])
    assert checks(found)["image compiled for XR2 Gen 2 (Proxy)"] is False
    hub.fail_jobs("compile", "Op Foo is not supported.", 13003)
    bad = aihub_sweep.target(series="2").submit_compile(pair.path("image"), "image").ticket.job_id
    assert "Op Foo is not supported." in " ".join(command(capsys, "submit", bad, text, *CONTRACT)[1].split())


def test_a_service_that_is_away_is_an_error_and_no_verdict(hub: AIHubServer, pair: Artifact) -> None:
    jobs = dict(zip(("image", "text"), compiled(pair), strict=True))
    target = aihub_sweep.target()
    hub.faults.append(Fault("POST /api/v1/jobs/", status=503, times=1000))
    with pytest.raises(TargetError, match="Nothing that was submitted is lost"):
        review(target, jobs, SAMPLE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "budget", "reference", "passed"),
    [
        (30.0, 35.0, None, [True, None]),
        (35.0, 35.0, 30.9, [True, None]),
        (35.1, 35.0, 40.0, [False, True]),
        (30.0, None, 30.9, [True]),
        (31.0, None, 30.9, [False]),
        (31.0, None, None, [None]),
    ],
)
def test_the_stated_budget_decides_and_the_measured_one_where_none_is_stated(
    total: float, budget: float | None, reference: float | None, passed: list[bool | None]
) -> None:
    latencies: dict[Tower, float] = {"image": total - 5, "text": 5.0}
    assert [check.passed for check in _budget(latencies, budget, reference)] == passed


def test_the_reference_is_measured_on_the_same_device_where_asked_for(
    hub: AIHubServer, pair: Artifact, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def exported(name: str, **options: Any) -> Artifact:  # the real one takes a minute
        asked.append((name, options))
        return pair

    monkeypatch.setattr("lpcvc_zoo.exporting.cache.cached_export", exported)
    jobs = compiled(pair)
    found = from_json(capsys, "submit", *jobs, *CONTRACT, "--measure-reference")["review"]
    assert asked == [("openai_clip_vit_b16", {"rewrites": "npu", "contract": SAMPLE.name})]
    assert found["reference_ms"] == pytest.approx(found["image_ms"] + found["text_ms"])
    assert checks({"review": found})["measured reference"] is True


# ---- sharing


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "times": 2}, {"after": True}, {}])
def test_with_yes_both_jobs_are_shared_and_the_form_is_written(
    hub: AIHubServer, pair: Artifact, capsys: Any, fault: dict[str, Any]
) -> None:
    jobs = compiled(pair)
    hub.faults.append(Fault(SHARING, **fault))
    status, out, _ = command(
        capsys, "submit", *jobs, *CONTRACT, "--yes", "--address", MINE, "--team", "Night Owls"
    )
    assert status == 0
    assert shared(hub) == {job: [MINE] for job in jobs}
    folder = Path("submissions") / "-".join(jobs) / MINE
    form = (folder / "form.txt").read_text()
    for part in (
        "Team: Night Owls",
        f"Image encoder compile job ID: {jobs[0]}",
        f"{hub.url}/jobs/{jobs[1]}/",
    ):
        assert part in form
        assert part in out
    record = (folder / "submission.json").read_text()
    assert list(json.loads(record)["shared"]) == jobs
    assert TOKEN not in record


def test_sharing_again_keeps_team_and_contact_and_every_addresss_record(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    sharing = ["submit", *compiled(pair), *CONTRACT, "--yes"]
    status, _, err = command(capsys, *sharing, "--out", "i.onnx")  # a file
    assert (status, "can't be written: Not a directory" in " ".join(err.split())) == (1, True)
    assert shared(hub) == {}
    assert command(capsys, *sharing, "--team", "Night Owls", "--contact", MINE)[0] == 0
    assert command(capsys, *sharing, "--address", MINE)[0] == 0
    out = command(capsys, *sharing)[1]
    assert "Team: Night Owls" in out
    forms = {path.parent.name: path.read_text() for path in Path("submissions").rglob("form.txt")}
    assert set(forms) == {ORGANISERS, MINE}
    assert f"Contact: {MINE}" in forms[ORGANISERS]
    assert f"Shared with: {MINE}" in forms[MINE]


def test_an_address_may_come_back_in_small_letters_and_must_be_one(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    jobs = compiled(pair)
    for job in hub.jobs:
        job.shared_with.append(MINE)
    there = ["submit", *jobs, *CONTRACT, "--address", MINE.title()]
    assert command(capsys, *there, "--yes")[0] == 0
    assert patches(hub) == []
    assert command(capsys, *there, "--check-sharing")[0] == 0
    status, _, err = command(capsys, *there, "--check-sharing", "--yes")
    assert (status, "Expected --yes or --check-sharing, not both" in err) == (1, True)
    for address in ("", "me", "me@a@b", "../me@example.org"):
        status, _, err = command(capsys, "submit", *jobs, "--address", address)
        assert (status, f"to share with, got {address!r}" in " ".join(err.split())) == (1, True)


def test_killed_between_the_two_it_shares_the_second_only(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    jobs = compiled(pair)
    arguments = ["submit", *jobs, *CONTRACT, "--yes"]
    child = subprocess.Popen(
        [sys.executable, "-m", "lpcvc_zoo.cli", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def kill_at_the_second(line: str) -> Fault | None:
        if line.startswith("PATCH") and SHARING in line and len(patches(hub)) == 2:
            os.kill(child.pid, signal.SIGKILL)
            return Fault(SHARING)
        return None

    hub.choose = kill_at_the_second
    assert child.wait(timeout=120) == -signal.SIGKILL
    hub.choose = None
    assert shared(hub) == {jobs[0]: [ORGANISERS]}
    assert command(capsys, "submit", *jobs, *CONTRACT, "--check-sharing")[0] == 1
    hub.seen.clear()
    assert command(capsys, *arguments)[0] == 0
    assert [jobs[1] in line for line in patches(hub)] == [True]
    assert shared(hub) == {job: [ORGANISERS] for job in jobs}
    status, out, _ = command(capsys, "submit", *jobs, "--check-sharing")
    assert (status, out.count(f"is shared with {ORGANISERS}")) == (0, 2)
    hub.jobs[0].shared_with.clear()
    assert from_json_status(capsys, "submit", *jobs, "--check-sharing") == (
        1,
        {jobs[0]: False, jobs[1]: True},
    )


def from_json_status(capsys: Any, *arguments: str) -> tuple[int, Any]:
    status, out, _ = command(capsys, *arguments, "--json")
    return status, json.loads(out)


def test_from_a_folder_of_onnx_files_over_a_sweep_to_a_submission(
    hub: AIHubServer, pair: Artifact, capsys: Any
) -> None:
    data = two_photos(Path("two photos").resolve())
    sweeping = ["sweep", "--artifacts", "pair", "--target", "aihub", "--dataset", str(data)]
    (row,) = from_json(capsys, *sweeping)
    assert (row["error"], row["weights"]) == (None, pair.manifest.weights)
    profiles = [job.id for job in hub.jobs if job.kind == "profile"]
    found = from_json(capsys, "submit", "pair.adopted", "--yes")
    assert found["review"]["image"]["id"] in shared(hub)
    assert len(shared(hub)) == 2
    assert found["review"]["recall"]["value"] == row["scores"]["recalls"][2]["value"]
    assert found["form"]["Model"] == "pair.adopted"
    assert [job.id for job in hub.jobs if job.kind == "profile"] == profiles  # the row's latency is used
    bundled = from_json(capsys, "bundle", "pair", "--out", "bundle")
    (kept,) = json.loads((Path(bundled["folder"]) / "results.json").read_text())
    assert kept["key"] == row["key"]


# ---- rows


def jobs_of(number: int) -> tuple[dict[str, str], ...]:
    return tuple(
        {"kind": "compile", "tower": tower, "id": f"j{number}{tower}", "url": "u"}
        for tower in ("image", "text")
    )


def remote(entry: str, number: int, **more: Any) -> Any:
    facts = {
        "target": "aihub",
        "device": "XR2 Gen 2 (Proxy)",
        "jobs": jobs_of(number),
        "key": f"{number}" * 64,
    }
    found = made_up_row(entry)
    return type(found).model_validate(found.model_dump(round_trip=True) | facts | more)


def test_a_row_is_found_by_key_or_name_and_only_where_jobs_stand_behind_it() -> None:
    rows = [
        remote("mobileclip_s0", 1, text_depth=2),
        remote("mobileclip_s0", 2, precision="w8a16"),
        made_up_row("mobileclip_s1"),
    ]
    rows.append(remote("mobileclip_s2", 3, error="TargetError: no"))
    assert find_row(rows, "2" * 6).precision == "w8a16"
    with pytest.raises(
        SubmissionError,
        match=r"is 2 rows.*111111111111: mobileclip_s0; 222222222222: mobileclip_s0, w8a16\.",
    ):
        find_row(rows, rows[0].entry)
    for missing in ("mobileclip_s1", "mobileclip_s2", "1", "mobilclip_s0"):
        with pytest.raises(UnknownNameError, match="Expected two compile job ids"):
            find_row(rows, missing)


def test_the_reference_is_openai_clip_whole_and_in_floats_on_the_same_device_and_contract() -> None:
    reference = remote("openai_clip_vit_b16", 1)
    others = [{"device": "S24"}, {"precision": "w8a8"}, {"contract": SAMPLE.name}, {"error": "no"}]
    others += [{"text_length": 24}, {"text_depth": 6}, {"image_size": 112}]
    rows = [remote("openai_clip_vit_b16", 2, **other) for other in others]
    where = (reference.contract, reference.device)
    assert reference_ms(rows, *where) is None
    assert reference_ms([reference, *rows], *where) == reference.total_ms
    assert reference_ms([made_up_row("openai_clip_vit_b16")], *where) is None


# ---- the bundle


def test_a_folders_bundle_has_every_measurement_of_its_files_and_no_rewrites(
    tmp_path: Path, pair: Artifact, capsys: Any
) -> None:
    (cell,) = artifact_cells([pair], [FakeTarget()])
    files = {f"{tower}_sha256": pair.manifest.tower(tower).sha256 for tower in TOWERS}
    added = [made_up_row(**files), made_up_row(**files), made_up_row(**files, error="no"), made_up_row()]
    with Ledger(tmp_path / "results") as ledger:
        for row in added:
            ledger.append(cell, row)
        assert ledger.rows() == added[-1:]
    status, _, err = command(capsys, "bundle", "pair", "--out", "bundle", "--rewrites", "none")
    assert (status, "pair is made already: expected no --rewrites" in err) == (1, True)
    from_json(capsys, "bundle", "pair", "--out", "bundle")
    kept = json.loads((tmp_path / "bundle" / "results.json").read_text())
    assert [row["image_sha256"] for row in kept] == [files["image_sha256"]] * 2


def csv_data(folder: Path, count: int) -> Path:
    """The first photos with their texts, as the rules' files come: a BOM, commas, capitals in file names."""
    (folder / "images").mkdir(parents=True)
    with (PHOTOS / "img_list.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *images = list(csv.reader(file))
    for name, _ in images[:count]:
        (folder / "images" / name.upper()).write_bytes((PHOTOS / "images" / name).read_bytes())
    with (folder / "img_list.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *images[:count]])
    (folder / "txt_list.csv").write_bytes((PHOTOS / "txt_list.csv").read_bytes())
    return folder


@pytest.mark.parametrize("contract", ["lpcvc2026", "lpcvc2026_sample"])
def test_the_bundles_own_script_gives_our_scores(tmp_path: Path, contract: str) -> None:
    size = get_contract(contract).image.height
    image = foreign.image_tower(tmp_path / "i.onnx", shape=(1, 3, size, size), dim=6) if size == 224 else None
    image = image or foreign.large_image_tower(tmp_path / "i.onnx", size)
    made = adopt(image, foreign.text_tower(tmp_path / "t.onnx"), tmp_path / "pair", contract=contract)
    zipped = write_bundle(made, tmp_path / "bundle")
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "elsewhere")
    data = csv_data(tmp_path / "data", 12)
    script = tmp_path / "elsewhere" / "bundle" / "evaluate.py"
    alone = (
        "import runpy, sys; sys.modules['lpcvc_zoo'] = sys.modules['torch'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", alone, str(script), str(data)], capture_output=True, text=True, check=True
    )
    scores, expected = json.loads(done.stdout), evaluate(made, data)
    assert (scores["images"], scores["texts"]) == (12, expected.texts)
    assert scores["recall@10 (fractional)"] == pytest.approx(expected.recall(10).value)
    assert scores["recall@10 (any-hit)"] == pytest.approx(expected.recall(10, "any").value)
    kept = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert kept == {path.name for path in script.parent.iterdir()}
    assert {"manifest.json", "contract.json", "requirements.txt", "versions.json", "results.json"} <= kept


TEXTS = [["text_nums", "unique_texts"], ["0", "a red boat"], ["1", "a dog, asleep"], ["2", "Two dogs"]]
IMAGES = [["image_names", "text_nums"], ["1.jpg", "0"], ["2.jpg", "1;2;"], ["café.JPG", "2"]]
ODD = {
    "as the rules have it": (TEXTS, IMAGES),
    "no header": (TEXTS[1:], IMAGES[1:]),
    "columns elsewhere": ([["", *row] for row in TEXTS], [row[::-1] for row in IMAGES]),
    "ids that are no numbers": (
        [["id", "text"], ["a", "a boat"], ["b", "a dog"]], [["image", "text_ids"], ["1.jpg", "a;b"]],
    ),
    "a text in capitals": ([*TEXTS, ["3", "A  RED Boat"]], [*IMAGES, ["3.jpg", "3"]]),
    "spaces": [[[f" {cell} " for cell in row] for row in rows] for rows in (TEXTS, IMAGES)],
    "zeros": ([*TEXTS, ["007", "a cat"]], [*IMAGES, ["3.jpg", "7;02"]]),
    "paths": (TEXTS, [*IMAGES, ["val/4.jpg", "0"], ["./VAL/5.jpg", "1"]]),
    "names in other cases and forms": (TEXTS, [["1.JPG", "0"], ["cafe\N{COMBINING ACUTE ACCENT}.jpg", "1"]]),
    "an image twice": (TEXTS, [*IMAGES, ["1.jpg", "2"]]),
    "images that are not there": (TEXTS, [*IMAGES, ["9.jpg", "0"], ["../1.jpg", "1"]]),
    "unknown ids": (TEXTS, [*IMAGES, ["3.jpg", "8"], ["val/4.jpg", "8;1"]]),
    "a special token": ([*TEXTS, ["3", "cat<|endoftext|>"]], [*IMAGES, ["3.jpg", "3"], ["val/4.jpg", "3;0"]]),
    "an id twice": ([*TEXTS, ["0", "a plane"], ["0", "A red boat"]], IMAGES),
    "cut short": ([*TEXTS, ["3"], ["4", " "], []], [*IMAGES, ["3.jpg"], []]),
}  # fmt: skip


def listed(folder: Path, texts: list[list[str]], images: list[list[str]]) -> Path:
    """Six images and the two lists of them, with these rows."""
    (folder / "images" / "val").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "café.JPG", "3.jpg", "val/4.jpg", "val/5.JPG"):
        (folder / "images" / name).touch()
    for name, rows in (("txt_list.csv", texts), ("img_list.csv", images)):
        with (folder / name).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.mark.parametrize(("texts", "images"), ODD.values(), ids=ODD)
def test_the_bundles_own_script_reads_what_we_read(
    tmp_path: Path, capsys: Any, texts: list[list[str]], images: list[list[str]]
) -> None:
    folder = listed(tmp_path, texts, images)
    expected = load_dataset(folder)
    found = bundled_evaluate.read_data(folder, None)
    assert found == (
        list(expected.images), list(expected.texts), [list(positives) for positives in expected.positives]
    )  # fmt: skip
    warned = any(problem.level == "warning" for problem in expected.problems)
    assert ("left out" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("texts", "images", "says"),
    [
        (TEXTS, [["9.jpg", "0"]], "expected images of img_list.csv in .*images and .*; found none"),
        ([], IMAGES, "found none that has both"),
        (TEXTS, [["1.jpg", "\udcff"]], "img_list.csv can't be read: .*utf-8"),
    ],
)
def test_the_bundles_own_script_says_why_there_is_nothing_to_score(
    tmp_path: Path, texts: list[list[str]], images: list[list[str]], says: str
) -> None:
    with pytest.raises(SystemExit, match=says):
        bundled_evaluate.read_data(listed(tmp_path, texts, images), None)


def test_the_bundles_own_script_reads_16_bits_as_we_do(tmp_path: Path) -> None:
    shades = np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8)
    for name in ("deep.png", "deep.pgm"):
        Image.fromarray(shades).save(tmp_path / name)
        spec = SAMPLE.image.model_dump(mode="json")
        found = bundled_evaluate.prepare_image(tmp_path / name, spec)
        np.testing.assert_array_equal(found, SAMPLE.prepare_image(tmp_path / name))


def test_the_bundles_own_script_names_a_broken_image_and_a_wrong_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"broken\.png can't be read as an image: UnidentifiedImageError"):
        bundled_evaluate.prepare_image(tmp_path / "broken.png", {})
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tmp_path), "--limit", "0"])
    with pytest.raises(SystemExit):
        bundled_evaluate.main()
    assert "--limit: expected 1 or more, got 0" in capsys.readouterr().err


def test_a_bundle_is_whole_or_the_earlier_one_stays(
    tmp_path: Path, pair: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(pair, tmp_path / "bundle")
    before = (tmp_path / "bundle.zip").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lpcvc_zoo.submission.bundle.shutil.make_archive", full)
        with pytest.raises(SubmissionError, match="No space left"):
            write_bundle(pair, tmp_path / "bundle")
    assert (tmp_path / "bundle.zip").read_bytes() == before
    assert (tmp_path / "bundle" / "evaluate.py").is_file()
    assert not list(tmp_path.glob(".bundle*"))
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(SubmissionError, match=r"it holds other files \(notes\.txt\)"):
        write_bundle(pair, tmp_path / "bundle")
    assert (tmp_path / "bundle.zip").read_bytes() == before
    half = adopt(tmp_path / "i.onnx", None, tmp_path / "half", contract=SAMPLE)
    with pytest.raises(SubmissionError, match="no more than the image tower"):
        write_bundle(half, tmp_path / "another")
    assert not (tmp_path / "another.zip").exists()


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, pair: Artifact) -> None:
    notes, other, folder = (
        tmp_path / "notes" / "README.txt",
        tmp_path / "bundle.zip",
        tmp_path / "b" / "x.zip",
    )
    notes.parent.mkdir()
    notes.write_text("mine")
    other.write_text("mine")
    folder.mkdir(parents=True)
    for out, says in (
        (notes.parent, "is no bundle"),
        (notes, "is no bundle"),
        (tmp_path / "bundle", "no bundle's zip"),
        (tmp_path / "b" / "x", "no bundle's zip"),
    ):
        with pytest.raises(SubmissionError, match=says):
            write_bundle(pair, out)
    assert notes.read_text() == other.read_text() == "mine"
    assert not (tmp_path / "bundle").exists()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x.zip"]
