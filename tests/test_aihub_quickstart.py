"""The AI Hub quickstart goes the whole way, and says what is missing where it can't."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from aihub_server import TOKEN, AIHubServer

SCRIPT = Path(__file__).parent.parent / "examples" / "aihub_quickstart.py"


IN_A_HURRY = "import time; sleep = time.sleep; time.sleep = lambda seconds: sleep(min(seconds, 0.01))"


def quickstart(folder: Path, *arguments: str, before: str = IN_A_HURRY, **env: str) -> tuple[int, str]:
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"{before}; {run}", str(SCRIPT), *arguments],
        cwd=folder, env=os.environ | env, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_it_goes_from_a_token_to_a_row_on_the_plot(hub: AIHubServer, tmp_path: Path) -> None:
    arguments = ("--model", "efficientvit_m0_text_s", "--contract", "lpcvc2026_sample")
    status, said = quickstart(tmp_path, *arguments, "--device", "XR2 Gen 2 (Proxy)")
    assert status == 0, said
    assert "submit efficientvit_m0_text_s --results aihub_results --device 'XR2 Gen 2 (Proxy)'" in said
    assert "XR2 Gen 2 (Proxy)" in said
    assert "on NPU" in said
    assert "untrained: its latency is real" in said
    page = (tmp_path / "aihub_results" / "report.html").read_text()
    assert "efficientvit_m0_text_s" in page
    assert "XR2 Gen 2 (Proxy)" in page
    assert [job.state for job in hub.jobs] == ["DONE"] * 6  # both towers and the preprocessing by itself
    assert TOKEN not in said + page


def test_without_the_client_or_the_token_it_says_how_to_get_them(tmp_path: Path) -> None:
    missing = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'qai_hub' else find(name, *more)"
    )
    status, said = quickstart(tmp_path, before=missing)
    assert (status, "pip install 'lpcvc-zoo[aihub]'" in said) == (1, True)
    status, said = quickstart(tmp_path, QAIHUB_CLIENT_INI=str(tmp_path / "none.ini"))
    assert (status, "qai-hub configure --api_token TOKEN" in said) == (1, True)
    assert "Traceback" not in said


def test_an_unknown_device_model_or_contract_is_one_message(hub: AIHubServer, tmp_path: Path) -> None:
    for option, said_of in (("--contract", "contract 'nosuch'"), ("--model", "model 'nosuch'")):
        status, said = quickstart(tmp_path, option, "nosuch")
        assert (status, f"Error: Unknown {said_of}" in said) == (1, True)
    status, said = quickstart(tmp_path, "--model", "efficientvit_*")
    assert (status, "Error: Unknown model 'efficientvit_*'" in said, hub.jobs) == (1, True, [])
    status, said = quickstart(tmp_path, "--device", "Samsung Galaxy S42")
    assert (status, "Did you mean 'Samsung Galaxy S2" in said) == (1, True)
    status, said = quickstart(tmp_path, "--model", "efficientvit_b0")
    assert (status, "Did you mean 'efficientvit_b0_text_s'" in said) == (1, True)
    assert "Traceback" not in said


def test_stopped_on_the_way_it_ends_as_the_sweep_does(hub: AIHubServer, tmp_path: Path) -> None:
    stopped = (
        "from lpcvc_zoo.bench import outcome, sweep; "
        "sweep.run = lambda options: outcome.Outcome(interrupted=True)"
    )
    status, said = quickstart(tmp_path, before=stopped)
    assert (status, "Traceback" in said, "3. What came back" in said) == (130, False, False)
