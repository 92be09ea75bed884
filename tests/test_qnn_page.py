"""The page that shows what the offline compiler said of every model."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from qnn_page import page

    return page


def row(**facts: str) -> dict[str, str]:
    told = {"model": "one", "contract": "lpcvc2026", "precision": "float", "device": "XR2 Gen 2"}
    told |= {"tower": "image", "compiles": "yes", "DRAM MB": "12.5", "cosine": "", "lint": ""}
    return told | {"weights": "trained", "to ONNX Runtime": "", "compiler": "compiler 1"} | facts


def test_what_was_not_tried_or_measured_is_shown_so_and_a_cosine_is_never_rounded_up(page) -> None:
    shown = page([row(cosine="0.9999996"), row(tower="text", **{"DRAM MB": ""})], ["one", "other"])
    assert "| `one` | yes | 12.5 / – | 0.99999 / – | – | – | – |" in shown
    assert "| `other` | – | – | – | – | – | – |" in shown
    assert "Of 32 compilations 2 were tried, 2 of them taken whole." in shown


def test_a_refusal_stands_in_the_compilers_own_words(page) -> None:
    shown = page([row(compiles="no: failed for node x with error code 3110")], ["one"])
    assert "1 were tried, 0 of them taken whole." in shown
    assert "one, lpcvc2026, float, XR2 Gen 2, image: no: failed for node x with error code 3110" in shown
    assert "| `one` | no / – |" in shown


def test_a_tower_that_emulates_to_nan_is_a_failure_and_not_the_lowest_cosine(page) -> None:
    shown = page([row(cosine="nan"), row(tower="text", cosine="0.5")], ["one"])
    assert "- Emulated to NaN: one, lpcvc2026, float, XR2 Gen 2, image\n" in shown
    assert "| `one` | yes | 12.5 | NaN / 0.50000 |" in shown
    assert "Lowest cosine of 1 trained towers emulated in float for XR2 Gen 2: 0.50000" in shown


def test_random_weights_in_sixteen_bits_are_held_against_onnx_runtime(page) -> None:
    settled = {"weights": "settled", "cosine": "0.9", "to ONNX Runtime": "0.999"}
    rows = [row(**settled), row(**settled, precision="w8a16"), row(tower="text", cosine="0.98")]
    shown = page(rows, ["one"])
    assert "| `one` | yes | 12.5 | 0.90000 / 0.98000 | yes / – | 12.5 / – | 0.99900 / – |" in shown
    assert "Lowest cosine of 1 untrained towers emulated in float for XR2 Gen 2: 0.90000" in shown


def test_the_page_has_the_compilers_that_made_its_lines(page) -> None:
    assert "fills; compiler 1 and compiler 2." in page(
        [row(), row(tower="text", compiler="compiler 2")], ["one"]
    )


@pytest.mark.parametrize(
    ("told", "stands"),
    [
        ({}, True),
        ({"samples": "3"}, True),
        ({"samples": "1"}, False),
        ({"samples": ""}, False),
        ({"weights": "given: laion400m"}, False),
        ({"weights": ""}, False),
        ({"compiler": "another"}, False),
    ],
)
def test_a_line_of_other_weights_or_fewer_samples_or_another_compiler_is_made_again(
    monkeypatch, told, stands
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from qnn_coverage import COMPILER, is_current, kind_of

    kind = kind_of("tinyclip_auto_vit_45m_32_text_18m", "laionyfcc400m")
    assert is_current(row(samples="2", weights=kind, compiler=COMPILER) | told, kind, 2) == stands


def test_a_check_lints_again_and_compiles_only_what_is_another_file(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import qnn_coverage as coverage

    name, contract, device = "efficientvit_m0_text_xs", "lpcvc2026", "XR2 Gen 2"
    manifest = SimpleNamespace(
        tower=lambda tower: SimpleNamespace(sha256={"image": "a", "text": "b"}[tower] * 64)
    )
    facts = {
        "model": name,
        "contract": contract,
        "device": device,
        "samples": "1",
        "compiler": coverage.COMPILER,
    }
    done = {
        (name, contract, "float", device, tower): row(**facts, tower=tower, export="a" * 16, lint="")
        for tower in ("image", "text")
    }
    fakes = {
        "build": lambda *_, **__: None,
        "samples_of": lambda *_: ({"image": [], "text": []},) * 2,
        "QnnTarget": lambda _: SimpleNamespace(close=lambda: None),
        "cached_export": lambda *_, **__: SimpleNamespace(manifest=manifest, path=lambda tower: tower),
        "linted": lambda artifact, tower: f"warning {tower}",
        "run_onnx": lambda *_: [],
        "measured": lambda *_: {"compiles": "yes", "cosine": 0.5},
    }
    for what, fake in fakes.items():
        monkeypatch.setattr(coverage, what, fake)
    given = Namespace(pretrained=False, samples=1, check=True, precision=["float"], device=[device])

    def made() -> list[tuple[str, ...]]:
        rows = coverage.rows_of(name, contract, given, done, Console(file=io.StringIO()))
        return [(row["tower"], row["lint"], str(row["cosine"]), row["export"][0]) for row in rows]

    assert made() == [("image", "warning image", "", "a"), ("text", "warning text", "0.5", "b")]
    given.check = False
    assert made() == []
