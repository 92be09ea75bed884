"""Third-party distributions, really installed: found, built and swept like built-in ones, or reported."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import install

from lpcvc_zoo import plugins
from lpcvc_zoo.errors import RegistryError, TargetError
from lpcvc_zoo.registry import untrained
from lpcvc_zoo.targets import GROUP, get_target, list_targets

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin" / "my_encoder.py"
ENTRY_POINT = "[lpcvc_zoo.backbones]\nfamily = {module}\n"
PLAIN = """
from lpcvc_zoo import Entry, Preprocessing, TextSpec

def make():
    raise AssertionError("listing must not build")

def entry(name):
    return Entry(
        name=name, family="theirs", make=make, image_size=32, embed_dim=8, text=TextSpec(
            context_length=77, pad_id=0, causal=True), preprocessing=Preprocessing(),
        licence="MIT", paper="https://example.org/paper",
    )

"""


def package(folder: Path, name: str, code: str) -> Path:
    made = folder / name
    made.mkdir()
    (made / "__init__.py").write_text(code, encoding="utf-8")
    return made


class Site:
    """A folder of installed distributions, and a fresh process that sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder / "site", folder / "scratch"
        self.scratch.mkdir()
        self.cache = folder / "cache"

    def add(self, distribution: str, module: str, code: str, entry_points: str | None = None) -> None:
        made = package(self.scratch, module, code)
        lines = entry_points or ENTRY_POINT.format(module=module)
        install(self.folder, self.scratch, distribution, made, lines)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": path, "LPCVC_ZOO_CACHE": str(self.cache), "COLUMNS": "100"},
            capture_output=True,
            text=True,
        )

    def zoo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "lpcvc_zoo.cli", *arguments)

    def listed(self) -> tuple[set[str], str]:
        """The names that a fresh process lists, and what it complains of."""
        done = self.zoo("list", "--json")
        assert done.returncode == 0, done.stderr
        return {entry["name"] for entry in json.loads(done.stdout)}, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.slow
def test_the_example_plugin_is_listed_built_and_swept(site: Site, tmp_path: Path) -> None:
    site.add("my-encoder", "my_encoder", EXAMPLE.read_text(encoding="utf-8"))
    assert "my_encoder_small" in site.listed()[0]
    out = tmp_path / "out"
    # One thread: where other tests run beside this one, more would only wait for each other.
    options = ("--models", "my_encoder*", "--contract", "lpcvc2026_sample", "--jobs", "1", "--threads", "1")
    swept = site.zoo("sweep", *options, "--out", str(out))
    assert swept.returncode == 0, swept.stderr
    (row,) = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert (row["entry"], row["weights"], row["error"]) == ("my_encoder_small", "untrained", None)
    assert min(row[tower]["latency"]["iterations_ms"][0] for tower in ("image", "text")) > 0
    (entry,) = runpy.run_path(str(EXAMPLE))["ENTRIES"]
    towers = untrained(entry)
    for tower, stated in ((towers.image, row["image_params"]), (towers.text, row["text_params"])):
        assert sum(parameter.numel() for parameter in tower.parameters()) == stated


BROKEN = {
    "an import error": ("import not_there_at_all\n", "not_there_at_all"),
    "an exception": ("1 / 0\n", "division by zero"),
    "an exit": ("raise SystemExit(3)\n", "3"),
    "no ENTRIES": ("MODELS = ()\n", "ENTRIES"),
    "ENTRIES of another type": ("ENTRIES = ('a name',)\n", "Entry"),
    "a taken name": (PLAIN + "ENTRIES = (entry('mobileclip_s0'),)\n", "mobileclip_s0"),
    "a name twice": (PLAIN + "ENTRIES = (entry('theirs_a'), entry('theirs_a'))\n", "theirs_a"),
}


@pytest.mark.parametrize(("code", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_reported_by_its_distribution_and_breaks_nothing_else(site, code, said) -> None:
    site.add("good-plugin", "good_plugin", PLAIN + "ENTRIES = (entry('good_a'), entry('good_b'))\n")
    site.add("bad-plugin", "bad_plugin", code)
    names, complaints = site.listed()
    assert "bad-plugin" in complaints
    assert said in complaints
    assert "good-plugin" not in complaints
    assert {"good_a", "good_b", "mobileclip_s0", "openai_clip_vit_b32"} <= names


def test_one_name_in_two_plugins_is_an_error_of_both_and_ends_neither_the_rest(site: Site) -> None:
    for plugin in ("first", "second"):
        site.add(f"{plugin}-plugin", plugin, PLAIN + f"ENTRIES = (entry('shared'), entry('{plugin}_own'))\n")
    names, complaints = site.listed()
    assert "shared" in complaints
    assert "first-plugin" in complaints
    assert "second-plugin" in complaints
    assert "mobileclip_s0" in names


def test_an_unknown_model_hints_at_the_plugin_that_could_not_be_used(site: Site) -> None:
    site.add("bad-plugin", "bad_plugin", "import not_there_at_all\n")
    asked = site.zoo("show", "their_model")
    assert asked.returncode != 0
    assert "Traceback" not in asked.stderr
    assert "bad-plugin" in asked.stderr


def unpacked(folder: Path, name: str, entry_points: str, *, metadata: bool = True) -> None:
    """What is installed of a distribution but its code."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(entry_points)
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_a_distribution_that_can_not_be_read_is_named_once_and_breaks_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugins, "_told", set())
    monkeypatch.syspath_prepend(str(tmp_path))
    unpacked(tmp_path, "nameless", f"[{GROUP}]\nours = nameless:Target\n", metadata=False)
    (tmp_path / "nameless.py").write_text("1 / 0\n")
    assert "ours" in list_targets()
    with pytest.raises(TargetError, match=r"of distribution 'nameless-1\.0\.dist-info' .*ZeroDivisionError"):
        get_target("ours")
    unpacked(tmp_path, "crooked", f"[{GROUP}]\nno equals sign\n")
    for _ in range(2):
        assert {"ours", "onnxruntime"} <= set(list_targets())
    assert [message.split(":")[0] for message in caplog.messages] == [
        "The entry points of crooked can't be read"
    ]


TARGETS = {
    "missing": "AttributeError",
    "number": "TypeError: expected a class or function, got int",
    "Leaving": "SystemExit: 3",
    "Raising": "KeyError: 'board'",
    "Bare": "TypeError: Bare has no fingerprint, compile, profile, infer",
}
THEIRS = """
number = 7

class Leaving:
    def __init__(self):
        raise SystemExit(3)

class Raising:
    def __init__(self):
        raise KeyError("board")

class Bare:
    pass
"""


def test_a_target_that_is_none_is_an_error_of_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_targets.py").write_text(THEIRS)
    lines = [f"their_{attribute} = their_targets:{attribute}" for attribute in TARGETS]
    unpacked(tmp_path, "theirs", "\n".join([f"[{GROUP}]", *lines, "aihub = their_targets:Bare", ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    for attribute, said in TARGETS.items():
        with pytest.raises(
            TargetError, match=f"Target 'their_{attribute}' of distribution 'theirs' .*{said}"
        ):
            get_target(f"their_{attribute}")
    with pytest.raises(RegistryError, match="Two targets are called 'aihub': one of lpcvc_zoo itself"):
        get_target("aihub")
    assert get_target("onnxruntime").name == "onnxruntime"
