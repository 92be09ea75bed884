"""The examples do what they say."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import CHEAPEST
from wheels import install

EXAMPLES = Path(__file__).parent.parent / "examples"

Example = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Runs an example as its command would, in this process, which has torch already; what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_the_quickstart_goes_from_a_name_to_a_score_and_says_what_it_is_worth(
    example: Example, tmp_path: Path
) -> None:
    said = example("quickstart.py", "--model", CHEAPEST)
    assert "weights: untrained" in said
    assert "An untrained model scores about chance." in said
    made = {path.name for path in (tmp_path / "quickstart").iterdir()}
    assert made == {"image_encoder.onnx", "text_encoder.onnx", "manifest.json"}


def test_the_quickstart_says_in_one_line_that_a_model_is_unknown(example: Example) -> None:
    with pytest.raises(SystemExit, match="Error: Unknown model 'nosuch'"):
        example("quickstart.py", "--model", "nosuch")


@pytest.mark.slow
def test_the_custom_target_measures_beside_the_built_in_one(example: Example) -> None:
    said = example("custom_target.py")
    measured = [line.split()[:2] for line in said.splitlines() if " ms, loaded in " in line]
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
