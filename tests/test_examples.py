"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import install

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_the_quickstart_goes_from_a_name_to_a_score_and_says_what_it_is_worth(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py"), "--model", "efficientvit_b0_text_s"],
        cwd=tmp_path,
        env=os.environ | {"LPCVC_ZOO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "weights: untrained" in done.stdout
    assert "An untrained model scores about chance." in done.stdout
    made = {path.name for path in (tmp_path / "quickstart").iterdir()}
    assert made == {"image_encoder.onnx", "text_encoder.onnx", "manifest.json"}


@pytest.mark.slow
def test_the_custom_target_measures_beside_the_built_in_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "custom_target.py")],
        env=os.environ | {"LPCVC_ZOO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    measured = [line.split()[:2] for line in done.stdout.splitlines() if " ms, loaded in " in line]
    assert measured == [
        [target, tower] for target in ("onnxruntime", "offline_cpu") for tower in ("image", "text")
    ]


LOOK = """
from lpcvc_zoo.targets import get_target, list_targets

print(list_targets())
print(get_target("offline_cpu").name)
"""


def test_a_distributions_target_is_found_by_its_one_line(tmp_path: Path) -> None:
    """As the example's text says: an entry point puts it into get_target and --target."""
    package = tmp_path / "custom_target"
    package.mkdir()
    (package / "__init__.py").write_bytes((EXAMPLES / "custom_target.py").read_bytes())
    line = "[lpcvc_zoo.targets]\noffline_cpu = custom_target:OfflineCpu\n"
    install(tmp_path / "site", tmp_path, "custom-target", package, line)
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'offline_cpu', 'onnxruntime'" in done.stdout
    assert done.stdout.split()[-1] == "offline_cpu"
