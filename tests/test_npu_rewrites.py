"""The benchmark that compiles plain towers and rewritten ones, and holds what is emulated against torch."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lpcvc_zoo.errors import ExportError, TargetError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import npu_rewrites

    return npu_rewrites


class Emulator:
    """A target that takes everything, and emulates an input to itself."""

    def compile(self, path, tower):
        return path

    def profile(self, compiled):
        return SimpleNamespace(file_bytes=None, traffic=None)

    def infer(self, compiled, inputs):
        return {"embedding": inputs["image"]}


@pytest.mark.parametrize("order", [(1.0, np.nan), (np.nan, 1.0)])
def test_one_embedding_that_is_nan_is_the_worst(script, order) -> None:
    file = SimpleNamespace(nodes=1, input_name="image", output_name="embedding")
    artifact = SimpleNamespace(manifest=SimpleNamespace(tower=lambda tower: file), path=Path)
    emulated = [np.full((1, 4), value, np.float32) for value in order]
    assert np.isnan(
        script.measured(Emulator(), artifact, "image", emulated, [torch.ones(1, 4)] * 2)["cosine"]
    )


@pytest.fixture
def run(script, monkeypatch, tmp_path):
    """main() of small models, with nothing built, exported or compiled; gives the lines of the CSV after."""
    path = tmp_path / "npu.csv"
    target = SimpleNamespace(device="XR2 Gen 2", versions={"compiler": "1"}, close=lambda: None)
    monkeypatch.setattr(script, "QnnTarget", lambda device: target)
    monkeypatch.setattr(script, "own_weights", lambda name: f"weights of {name}")
    monkeypatch.setattr(script, "build", lambda name, **options: (name, options["pretrained"]))
    nothing = {"image": [], "text": []}
    monkeypatch.setattr(script, "samples_of", lambda model, count: (nothing, nothing))

    def main(*models: str, export=lambda name, **options: None, measured=lambda *args: {"compiles": "yes"}):
        monkeypatch.setattr(script, "cached_export", export)
        monkeypatch.setattr(script, "measured", measured)
        monkeypatch.setattr("sys.argv", ["npu_rewrites.py", "--out", str(path), "--models", *models])
        try:
            script.main()
        finally:
            with path.open(newline="", encoding="utf-8") as file:
                lines.extend((row["model"], row["rewrites"], row["tower"]) for row in csv.DictReader(file))

    lines: list[tuple[str, str, str]] = []
    return main, lines


FORMS = [("none", "image"), ("none", "text"), ("npu", "image"), ("npu", "text")]
SMALL, OTHER = "efficientnet_lite0_96_text_xxs", "efficientvit_m0_text_s"


def no_emulation(target, artifact, tower, inputs, wanted):
    if tower == "image":
        raise TargetError("it died | in its\nown words [0]")
    return {"compiles": "yes"}


def no_npu_export(name, *, rewrites, **options):
    if rewrites == "npu":
        raise ExportError("it died | in its\nown words [0]")


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ({"measured": no_emulation}, [FORMS[1], FORMS[3]]),
        ({"export": no_npu_export}, FORMS[:2]),
    ],
    ids=["not emulated", "not exported"],
)
def test_a_tower_that_cannot_be_measured_says_why_and_ends_no_other(run, capsys, fault, left) -> None:
    main, lines = run
    with pytest.raises(SystemExit, match="4 of the lines"):
        main(SMALL, OTHER, **fault)
    assert lines == [(name, *form) for name in (SMALL, OTHER) for form in left]
    told = [line for line in capsys.readouterr().out.splitlines() if "not measured" in line]
    assert len(told) == 4
    assert all("not measured: it died \\| in its own words [0] |" in line for line in told)


def test_a_model_that_cannot_be_built_ends_no_other(run, capsys) -> None:
    main, lines = run
    with pytest.raises(SystemExit, match="1 of the lines"):
        main("no_such_model", SMALL)
    assert lines == [(SMALL, *form) for form in FORMS]
    assert "not measured: Unknown model 'no_such_model'" in capsys.readouterr().out


def test_an_interrupted_run_keeps_its_rows_and_those_of_other_models(run) -> None:
    main, lines = run
    main(SMALL)
    lines.clear()

    def interrupted(target, artifact, tower, inputs, wanted):
        if tower == "text":
            raise KeyboardInterrupt
        return {"compiles": "yes"}

    with pytest.raises(KeyboardInterrupt):
        main(OTHER, measured=interrupted)
    assert lines == [*((SMALL, *form) for form in FORMS), (OTHER, *FORMS[0])]


def test_exports_and_references_have_the_same_weights_and_lines_say_which(run, script, capsys) -> None:
    main, _ = run
    seen: list[object] = []
    main(SMALL, OTHER, export=lambda name, **options: seen.append(options["pretrained"]))
    assert seen == [f"weights of {SMALL}"] * 4 + [f"weights of {OTHER}"] * 4
    out = capsys.readouterr().out
    assert (out.count(f"| {SMALL} | trained |"), out.count(f"| {OTHER} | settled |")) == (4, 4)


def test_weights_are_the_packages_where_it_has_some_else_settled(script, monkeypatch) -> None:
    import settled

    monkeypatch.setattr(settled, "settled", lambda name, folder: folder / f"{name}.safetensors")
    found = {
        name: (settled.own_kind(name), settled.own_weights(name))
        for name in (SMALL, OTHER, "mobileclip_s0.datacompdr")
    }
    assert found == {
        SMALL: ("trained", "conse_minilm"),
        OTHER: ("settled", settled.WEIGHTS / f"{OTHER}.safetensors"),
        "mobileclip_s0.datacompdr": ("trained", "datacompdr"),
    }
