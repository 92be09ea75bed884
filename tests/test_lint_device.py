"""Lint with a device: the offline compiler's own word on a file, beside the rules'."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bad_models import CORPUS, FLOAT, constants, floats, model, node, quantised_product
from qnn_compiler import needs_compiler

from lpcvc_zoo.cli import main
from lpcvc_zoo.cli.lint import REFUSED
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.exporting.lint import lint
from lpcvc_zoo.files import CACHE_VARIABLE
from lpcvc_zoo.targets.qnn import target as qnn_target
from lpcvc_zoo.targets.qnn.target import QnnTarget


def _lint(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["lint", str(path), *options])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def _good(folder: Path) -> Path:
    onnx.save(floats(node("Relu", "x", "y", "rectify")), folder / "good.onnx")
    return folder / "good.onnx"


@needs_compiler
def test_a_file_that_the_compiler_takes_is_said_to_be_taken_whole(tmp_path: Path, capsys) -> None:
    code, out, _ = _lint(_good(tmp_path), capsys, "--device", "xr2 gen 2", "--fail-on", "error")
    assert "the compiler for XR2 Gen 2 takes it whole" in out
    assert REFUSED not in out
    assert code == 0


@needs_compiler
def test_each_refused_node_is_an_error_in_the_compilers_own_words(tmp_path: Path, capsys) -> None:
    """Lint's own rules know Asinh as well; that Relu and Add between are taken, only the compiler says."""
    proto = floats(
        node("Erf", "x", "a", "bare_erf"), node("Relu", "a", "b", "rectify"),
        node("Asinh", "b", "c", "asinh"), node("Add", "c c", "y", "double_it"),
    )  # fmt: skip
    onnx.save(proto, tmp_path / "bad.onnx")
    code, out, _ = _lint(tmp_path / "bad.onnx", capsys, "--device", "XR2 Gen 2", "--json")
    assert code == 1
    (report,) = json.loads(out)
    assert (report["device"], report["compiles"]) == ("XR2 Gen 2", False)
    said = {tuple(each["nodes"]): each["message"] for each in report["findings"] if each["rule"] == REFUSED}
    assert said == {
        (name,): f"{kind} is refused for XR2 Gen 2: "
        f"Unsupported nodes in QNN EP: {{ name: {name}, type: {kind} }}"
        for name, kind in (("bare_erf", "Erf"), ("asinh", "Asinh"))
    }
    assert _lint(tmp_path / "bad.onnx", capsys, "--device", "XR2 Gen 2", "--fail-on", "never")[0] == 0


@needs_compiler
def test_a_file_that_is_refused_as_a_whole_is_one_finding(tmp_path: Path, capsys) -> None:
    onnx.save(CORPUS["a stranger's operator"].make(), tmp_path / "bad.onnx")
    code, out, _ = _lint(tmp_path / "bad.onnx", capsys, "--device", "XR2 Gen 2")
    assert "the compiler for XR2 Gen 2 refuses it" in out
    assert "can't be compiled for XR2 Gen 2: Fail: " in out
    assert code == 1


@needs_compiler
@pytest.mark.parametrize(("device", "status"), [("XR2 Gen 2", 1), ("Snapdragon 8 Gen 2", 0)])
def test_the_rules_know_the_device_too(tmp_path: Path, capsys, device: str, status: int) -> None:
    """The compiler takes a product of one row for both chips, and gets it wrong on one."""
    onnx.save(quantised_product(1), tmp_path / "narrow.onnx")
    code, out, _ = _lint(tmp_path / "narrow.onnx", capsys, "--device", device, "--json")
    (report,) = json.loads(out)
    assert report["compiles"] is True
    assert ("narrow-product" in {each["rule"] for each in report["findings"]}) == bool(status)
    assert code == status


@needs_compiler
@pytest.mark.parametrize(
    ("place", "rounding", "right"),
    [
        ("asymmetric", "floor", True),
        ("half_pixel", "round_prefer_ceil", True),
        ("half_pixel", "round_prefer_floor", False),
        ("half_pixel", "floor", False),
    ],
)
def test_nearest_is_silently_rounded_otherwise_where_lint_warns(
    tmp_path: Path, monkeypatch, place: str, rounding: str, right: bool
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    halve = node(
        "Resize", "x none half", "y", "resize", nearest_mode=rounding, coordinate_transformation_mode=place
    )
    proto = model(
        ("x", FLOAT, [1, 3, 12, 12]), ("y", FLOAT, [1, 3, 6, 6]), [halve],
        constants(none=np.zeros(0, np.float32), half=np.array([1, 1, 0.5, 0.5], np.float32)),
    )  # fmt: skip
    path = tmp_path / "resize.onnx"
    onnx.save(proto, path)
    assert ("resize" not in {finding.rule for finding in lint(path).findings}) == right
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, 12, 12)).astype(np.float32)
    target = QnnTarget("XR2 Gen 2")
    emulated = target.infer(target.compile(path, "image"), {"x": x})["y"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.allclose(emulated, session.run(None, {"x": x})[0], atol=2e-3) == right


@needs_compiler
def test_a_crash_of_the_compiler_leaves_the_rules_findings_and_fails(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    def crash(self: QnnTarget, path: Path) -> None:
        raise TargetError("ended early, killed by SIGABRT")

    monkeypatch.setattr(QnnTarget, "check", crash)
    code, out, err = _lint(_good(tmp_path), capsys, "--device", "XR2 Gen 2")
    assert "the compiler for XR2 Gen 2 gave no answer" in out
    assert "contract:" in out
    assert "Not all was looked at: ended early, killed by SIGABRT" in err
    assert code == 1


def test_without_the_package_the_command_says_how_to_install_it(tmp_path: Path, capsys, monkeypatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(qnn_target, "version", missing)
    monkeypatch.setattr(qnn_target.sys, "platform", "linux")
    monkeypatch.setattr(qnn_target.platform, "machine", lambda: "x86_64")
    code, _, err = _lint(_good(tmp_path), capsys, "--device", "XR2 Gen 2")
    assert "pip install 'lpcvc-zoo[qnn]'" in err
    assert code == 1


def test_an_unknown_device_gets_suggestions(tmp_path: Path, capsys) -> None:
    code, _, err = _lint(_good(tmp_path), capsys, "--device", "Snapdragon 8 Gen 33")
    assert "Did you mean" in err
    assert code == 1
