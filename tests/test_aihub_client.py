"""The newest client, and the oldest that is supported, take the same road to the same results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aihub_server import AIHubServer

HERE = Path(__file__).parent
OLDEST = "0.50.0"


@pytest.fixture(scope="session")
def oldest_client() -> Path:
    """A folder with only the oldest client in it; what it needs is what the newest needs."""
    folder = Path(tempfile.gettempdir()) / f"lpcvc_zoo_tests_{os.getuid()}" / f"qai-hub-{OLDEST}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(fresh)]
        done = subprocess.run([*command, f"qai-hub=={OLDEST}"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip(f"qai-hub {OLDEST} can't be installed here: {done.stderr.strip().splitlines()[-1:]}")
        fresh.rename(folder)
    return folder


def drive(hub: AIHubServer, folder: Path, first: Path | None = None) -> dict[str, Any]:
    search = [str(path) for path in (first, HERE.parent, HERE) if path]
    done = subprocess.run(
        [sys.executable, str(HERE / "aihub_driver.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(search), "LPCVC_ZOO_CACHE": str(folder / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same(found: dict[str, Any]) -> dict[str, Any]:
    """Without the client's version and what the service numbers."""
    text = json.dumps({name: value for name, value in found.items() if name != "client"}, sort_keys=True)
    result: dict[str, Any] = json.loads(text)
    for precision in ("float", "w8a16"):
        del result[precision]["compiled"]["reference"]
        del result[precision]["profile"]["job_id"], result[precision]["profile"]["job_url"]
    return result


def test_the_newest_client_takes_the_whole_road(hub: AIHubServer, tmp_path: Path) -> None:
    hub.state.slow = 2
    found = drive(hub, tmp_path)
    assert found["shared"] == ["someone@example.org"]
    assert [job.kind for job in hub.jobs] == [
        "compile", "profile", "inference", "quantize", "compile", "profile", "inference",
    ]  # fmt: skip
    assert {job.field for job in hub.jobs if job.kind == "profile"} == {"inference_job"}
    assert hub.state.duplicates() == []
    exact, quantised = (np.array(found[precision]["outputs"]).ravel() for precision in ("float", "w8a16"))
    cosine = exact @ quantised / np.linalg.norm(exact) / np.linalg.norm(quantised)
    assert 0.95 < cosine < 1 - 1e-9  # four random samples calibrate it


def test_the_oldest_client_gives_the_same(hub: AIHubServer, tmp_path: Path, oldest_client: Path) -> None:
    hub.state.slow = 2
    newest = drive(hub, tmp_path / "newest")
    oldest = drive(hub, tmp_path / "oldest", oldest_client)
    assert (oldest["client"], newest["client"]) == (OLDEST, newest["client"])
    assert newest["client"] != OLDEST
    assert same(oldest) == same(newest)
    assert any(job.field == "profile_job" for job in hub.jobs)
