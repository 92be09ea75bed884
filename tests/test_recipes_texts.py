"""The recipe that collects texts: half a package, and what the steps after it go by."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "benchmarks" / "recipes"

# Each stops midway while there is a file "stop", with half of its work under the name of the whole.
TOOLS = {
    "apt-get": 'echo half > "$3_1_all.deb"; test ! -e {stop} && echo whole > "$3_1_all.deb"',
    "dpkg": 'mkdir -p "$3"; touch "$3/first"; test ! -e {stop} && cp "$2" "$3/last"',
    "npm": """mkdir -p package; head -c 99999 /dev/urandom > package/first; echo whole > package/last
tar -czf set-1.tgz package/first package/last; rm -r package
test -e {stop} && truncate -s 50000 set-1.tgz; echo set-1.tgz""",
}


@pytest.fixture
def collect_texts(monkeypatch, tmp_path):
    """The module, where apt-get, dpkg and npm are scripts."""
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    for name, script in TOOLS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script.format(stop=tmp_path / 'stop')}\n")
        path.chmod(0o755)
    import collect_texts

    yield collect_texts
    for name in ("captions", "collect_texts", "phrases"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("stopped", ["debian", "debian_archive", "npm"])
def test_half_a_package_is_fetched_and_unpacked_again(collect_texts, tmp_path, stopped: str) -> None:
    packages, stop = tmp_path / "packages", tmp_path / "stop"
    if stopped == "debian":
        collect_texts.debian_archive("set", packages)  # so that unpacking it is what stops
    stop.touch()
    with pytest.raises((subprocess.CalledProcessError, EOFError)):
        getattr(collect_texts, stopped)("set", packages)
    stop.unlink()
    if stopped == "npm":
        assert (collect_texts.npm("set", packages) / "last").read_text() == "whole\n"
    else:
        assert (collect_texts.debian("set", packages) / "last").read_text() == "whole\n"
    assert {path.name for path in packages.iterdir()} == {
        "set",
        "set-1.tgz" if stopped == "npm" else "set_1_all.deb",
    }


@pytest.mark.parametrize("recipe", ["text_xs", "text_xxs"])
def test_the_steps_that_follow_see_that_other_texts_were_collected(
    collect_texts, tmp_path, monkeypatch, recipe: str
) -> None:
    first, *_ = tomllib.loads((RECIPES / f"{recipe}.toml").read_text())["steps"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", first["run"].split())
    Path("recipes-data/texts/packages").mkdir(parents=True)
    made = []
    for text in ("a cat", "a dog", "a dog"):
        monkeypatch.setattr(collect_texts, "gather", lambda *_, text=text: {"generated": [text]})
        collect_texts.main()
        made.append(Path(first["makes"]).read_bytes())
    assert made[0] != made[1] == made[2]
