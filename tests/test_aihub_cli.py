"""The commands that speak to AI Hub."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import aihub_sweep
import pytest
import sweep_fakes
import tiny
from aihub_server import DEVICES, TOKEN, AIHubServer, Fault
from test_cli import command

from lpcvc_zoo.cli.checks import check_cache
from lpcvc_zoo.exporting.artifact import load_artifact


def from_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    status, out, err = command(capsys, *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


@pytest.fixture
def small_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model whose export is a few nodes."""
    monkeypatch.setenv(sweep_fakes.FOLDER, str(tmp_path / "exports"))
    folder = aihub_sweep.export("alpha_0", "untrained", aihub_sweep.CONTRACT, None)
    monkeypatch.setattr(
        "lpcvc_zoo.exporting.cache.cached_export", lambda name, **options: load_artifact(folder)
    )
    return "mobileclip_s0"


def test_devices_lists_all_or_some(hub: AIHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert {device["name"] for device in from_json(capsys, "devices")} == {name for name, _, _ in DEVICES}
    found = [device["name"] for device in from_json(capsys, "devices", "all-phones")]
    assert found == ["Samsung Galaxy S24", "Samsung Galaxy S23"]
    status, out, _ = command(capsys, "devices", "XR2 Gen 2 (Proxy)")
    assert status == 0
    assert "qualcomm-xr2gen2" in out
    status, _, err = command(capsys, "devices", "XR3 Gen 2 (Proxy)")
    assert status == 1
    assert "Did you mean 'XR2 Gen 2 (Proxy)'" in err


@pytest.mark.parametrize("precision", ["float", "w8a8"])
def test_profile_and_evaluate_on_a_device(
    hub: AIHubServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    small_export: str,
    precision: str,
) -> None:
    data = str(tiny.two_photos(tmp_path / "photos"))
    where = ["--contract", aihub_sweep.CONTRACT, "--target", "aihub", "--device", "Samsung Galaxy S23"]
    where += ["--precision", precision, "--calibration", str(tiny.two_photos(tmp_path / "calibration"))]
    profiles = from_json(capsys, "profile", small_export, *where, "--runtime", "onnx")
    assert profiles["image"]["device"] == "Samsung Galaxy S23"
    assert profiles["text"]["layers_by_unit"]["CPU"] == 1
    status, out, _ = command(capsys, "profile", small_export, *where)
    assert status == 0
    assert f"{hub.url}/jobs/" in out
    assert "NPU" in out
    scores = from_json(capsys, "evaluate", small_export, *where, "--dataset", data)
    assert (scores["images"], scores["texts"]) == (2, 12)
    assert [job.kind for job in hub.jobs].count("quantize") == (0 if precision == "float" else 2)
    assert hub.state.duplicates() == []


def checks(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    status, out, err = command(capsys, "doctor", "--json")
    assert TOKEN not in out + err
    return status, {check["what"]: check for check in json.loads(out)}


def test_doctor_finds_all_well(hub: AIHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = checks(capsys)
    assert status == 0, found
    assert {found[what]["state"] for what in ("python", "packages", "AI Hub token", "AI Hub service")} == {
        "ok"
    }
    status, out, _ = command(capsys, "doctor")
    assert status == 0
    assert TOKEN not in out


def test_doctor_says_what_is_missing_and_how_to_fix_it(
    hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "nothing.ini"))
    status, found = checks(capsys)
    assert status == 0  # only AI Hub needs it
    assert found["AI Hub token"]["state"] == "missing"
    assert "qai-hub configure" in found["AI Hub token"]["fix"]
    needs = ["numpy>=99", "no-such-package>=1", 'qai-hub>=99; extra == "aihub"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    status, found = checks(capsys)
    assert status == 1
    assert "numpy is " in found["packages"]["found"]
    assert "no-such-package>=1 is not installed" in found["packages"]["found"]
    assert "pip install" in found["packages"]["fix"]


def test_doctor_says_how_large_the_cache_is_and_when_its_disk_is_nearly_full(
    hub: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kept"
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(folder))
    _, found = checks(capsys)
    assert f"{folder}: empty; " in found["cache"]["found"]
    (folder / "qnn" / "image").mkdir(parents=True)
    with (folder / "qnn" / "image" / "context.bin").open("wb") as file:
        file.truncate(2_100_000_000)
    _, found = checks(capsys)
    assert f"{folder}: qnn 2.1 GB; " in found["cache"]["found"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    status, found = checks(capsys)
    assert status == 0
    assert found["cache"]["state"] == "missing"
    assert "any folder in it but aihub" in found["cache"]["fix"]  # without it jobs are sent twice
    assert "LPCVC_ZOO_CACHE" in found["cache"]["fix"]
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(folder / "qnn" / "image" / "context.bin"))
    status, found = checks(capsys)
    assert status == 1
    assert found["cache"]["found"].endswith("context.bin is none")


@pytest.mark.parametrize("what", ["lpcvc_zoo.cli.checks.try_to_write", "pathlib.Path.iterdir"])
def test_doctor_says_when_the_cache_can_not_be_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(folder: Path) -> None:  # root may write and read all, so permissions would not show it
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(what, refuse)
    found = check_cache()
    assert (found.state, "can't be read and written: Permission denied" in found.found) == ("bad", True)


@pytest.mark.parametrize(
    ("fault", "said", "fix"),
    [
        (Fault("users/", status=401), "authenticate", "qai-hub configure"),
        (Fault("users/", status=503), "gave no usable answer in one try", "network"),
        (Fault("users/"), "gave no usable answer in one try", "network"),
        (Fault("users/", status=426, detail="Please upgrade qai-hub."), "upgrade", "pip install -U qai-hub"),
    ],
)
def test_doctor_asks_the_service(
    hub: AIHubServer, capsys: pytest.CaptureFixture[str], fault: Fault, said: str, fix: str
) -> None:
    hub.faults.append(fault)
    status, found = checks(capsys)
    assert status == 1
    assert found["AI Hub service"]["state"] == "bad"
    assert said in found["AI Hub service"]["found"]
    assert fix in found["AI Hub service"]["fix"]


@pytest.mark.slow
def test_sweep_on_a_device_compares_its_embeddings_with_torch(
    hub: AIHubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real model, exported in a worker, and embedded by torch in another."""
    data = str(tiny.two_photos(tmp_path / "photos"))
    asked = ["sweep", "--models", tiny.CHEAPEST, "--contract", aihub_sweep.CONTRACT, "--untrained"]
    asked += ["--target", "aihub", "--dataset", data, "--evaluate-untrained", "--out", str(tmp_path / "out")]
    asked += ["--jobs", "1"]
    (row,) = from_json(capsys, *asked)
    assert row["error"] is None
    for tower in ("image", "text"):
        assert row[f"{tower}_device_parity"]["min_cosine"] > 0.9999
        assert row[tower]["layers_by_unit"]["NPU"] > 50
    page = (tmp_path / "out" / "results.csv").read_text()
    header, values = page.splitlines()
    assert "image_device_min_cosine" in header
    assert f"{hub.url}/jobs/{row['jobs'][0]['id']}/" in values
