"""The command line as a person and as a machine meet it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import CHEAPEST, two_photos

import lpcvc_zoo
from lpcvc_zoo import registry
from lpcvc_zoo.bench.ledger import MARKS, Ledger
from lpcvc_zoo.cli import main
from lpcvc_zoo.cli.shared import print_table, table
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting import cache as exports

SMALL = "efficientvit_m0_text_s"
SAMPLE = ["--contract", "lpcvc2026_sample"]
pytestmark = pytest.mark.usefixtures("cache")


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def from_json(capsys: pytest.CaptureFixture[str], *arguments: str):
    status, out, _ = command(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_list_shows_every_model_whole_in_eighty_columns(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command(capsys, "list")
    assert status == 0
    for name in registry.list_models():
        assert f"\n{name} " in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_no_number_of_a_table_is_cut_in_a_narrow_terminal(capsys, monkeypatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = table("direction", ">recall", "95 % interval", "chance")
    shown.add_row("image to text", "0.692", "0.561 to 0.801", "0.137")
    print_table(shown)
    assert capsys.readouterr().out.splitlines()[1].rstrip() == "image to text   0.692  0.561 to 0.801  0.137"


def test_list_filters_and_speaks_json(capsys) -> None:
    found = from_json(capsys, "list", "mobileclip2*", "--pretrained")
    assert [entry["name"] for entry in found] == ["mobileclip2_b", "mobileclip2_s0", "mobileclip2_s2"]
    assert {entry["family"] for entry in from_json(capsys, "list", "--family", "tinyclip")} == {"tinyclip"}


def test_list_pretrained_has_every_checkpoint_below_its_licence_in_eighty_columns(
    capsys, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = command(capsys, "list", "--pretrained")
    assert max(map(len, out.splitlines())) <= 80
    paragraphs = [" ".join(paragraph.split()) + " " for paragraph in out.split("\n\n")]
    for entry in map(registry.get_entry, registry.list_models(pretrained=True)):
        for record in entry.pretrained:
            (own,) = [found for found in paragraphs if f" {entry.name}.{record.tag} " in found]
            assert own.startswith(f"Licence: {record.licence} ")
    assert any(" mobileclip_s0.datacompdr 67.8 85.9 58.7 " in found for found in paragraphs)


def test_list_imports_no_torch() -> None:
    code = "import sys; from lpcvc_zoo.cli import app; app(['list'], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"


def test_show_tells_a_checkpoints_source_licence_and_published_figures(capsys) -> None:
    _, out, _ = command(capsys, "show", "mobileclip_s0")
    text = " ".join(out.split())
    for fact in ("apple/MobileCLIP-S0/mobileclip_s0.pt", "research use only", "67.79 %", "not causal"):
        assert fact in text
    assert from_json(capsys, "show", "mobileclip_s0")["pretrained"][0]["tag"] == "datacompdr"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "mobilclip_s0"],
        ["export", "mobilclip_s0"],
        ["profile", "mobilclip_s0"],
        ["evaluate", "mobilclip_s0"],
        ["sweep", "--models", "mobilclip_s0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_misspelt_model_is_one_line_with_suggestions_and_no_traceback(capsys, arguments) -> None:
    status, out, err = command(capsys, *arguments)
    assert status == 1
    assert err.startswith("Error: Unknown model 'mobilclip_s0'. Did you mean 'mobileclip_s0'")
    assert "Traceback" not in out + err


def test_an_error_of_the_system_is_one_line(capsys) -> None:
    status, _, err = command(capsys, "export", SMALL, "--pretrained", "a" * 300)
    assert (status, err) == (1, f"Error: {'a' * 300}: File name too long.\n")


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lpcvc_zoo.cli", "--debug", "show", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", SMALL, "--contract", "lpcvc2062"], "Did you mean 'lpcvc2026'"),
        (["export", SMALL, *SAMPLE, "--text-length", "99"], "expected 3 to 77 tokens, got 99"),
        (["export", SMALL, *SAMPLE, "--text-depth", "5"], "text_depth: expected 1 to 4 layers, got 5"),
        (["profile", SMALL, "--target", "onnxruntim"], "Did you mean 'onnxruntime'"),
        (["profile", SMALL, "--device", "XR2 Gen 2"], "Did you mean the target aihub or qnn?"),
        (["evaluate", SMALL, "--dataset", "fotos"], "Did you mean 'photos'"),
        (["evaluate", SMALL, "--dataset", "no/such/folder"], "does not exist"),
        (
            ["evaluate", SMALL, "--device", "no such", "--runtime", "bogus"],
            "--device no such, --runtime bogus has no effect without --target",
        ),
        (["evaluate", SMALL, "--calibration", "photos"], "has no effect without --precision"),
        (["profile", SMALL, "--calibration", "photos"], "has no effect without --precision"),
        (["quantize", SMALL, "--explain", "--force"], "--force has no effect with --explain"),
        (["quantize", SMALL, "--explain", "--dataset", "photos"], "--dataset photos has no effect with"),
        (["export", SMALL, "--dataset", "photos_heldout"], "has no effect without --text-length auto"),
        (["evaluate", SMALL, "--dataset", "nowhere"], "There is no file or folder of that name either."),
        (["evaluate", "no/such"], "There is no folder no/such: expected one that export, quantize or adopt"),
        (["quantize", SMALL, "--precision", "float"], "Nothing is quantised in float: expected w8a16"),
        (["quantize", SMALL, "--precision", "w8a6"], "Did you mean 'w8a16'"),
        (["quantize", "/tmp"], "/tmp is a folder: expected the name of a model"),
        (["submit", "mobileclip_s0", "--results", "no/such"], "in the folder --results"),
        (["list", "--family", "mobilclip"], "Did you mean 'mobileclip'"),
        (["report", "no/such/folder"], "Run a sweep first"),
        (["sweep", "--precision", "flaot"], "Did you mean 'float'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_bad_input_says_what_to_do(capsys, arguments, says) -> None:
    status, _, err = command(capsys, *arguments)
    assert status == 1
    assert says in err


@pytest.mark.parametrize(
    ("flag", "given", "least"), [("--jobs", "0", 1), ("--text-length", "8,2", 3), ("--text-depth", "0", 1)]
)
def test_a_number_out_of_range_is_a_usage_error(capsys, flag, given, least) -> None:
    status, _, err = command(capsys, "sweep", flag, given)
    assert status == 2
    assert f"{flag}: Input should be greater than or equal to {least}" in " ".join(err.split())


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(capsys, tmp_path) -> None:
    (tmp_path / "taken").write_text("a file")
    status, out, err = command(capsys, "sweep", "--quick", "--out", str(tmp_path / "taken" / "results"))
    assert status == 1
    assert "can't be made" in err
    assert "1/" not in out


@pytest.mark.parametrize("arguments", [["export"], ["quantize"], ["quantize", "--explain"]], ids=" ".join)
def test_an_out_inside_a_file_is_refused_before_anything_is_exported(
    capsys, tmp_path, monkeypatch, arguments
) -> None:
    monkeypatch.setattr(registry, "build", lambda *_, **__: pytest.fail("it built"))
    monkeypatch.setattr(exports, "cached_export", lambda *_, **__: pytest.fail("it exported"))
    (tmp_path / "taken").write_text("a file")
    status, _, err = command(capsys, *arguments, SMALL, "--out", str(tmp_path / "taken" / "out"))
    assert status == 1
    assert f"expected a folder, but {tmp_path / 'taken'} is none" in err


def test_a_report_that_cannot_be_written_is_one_message(capsys, tmp_path) -> None:
    with Ledger(tmp_path):
        pass
    (tmp_path / "report.html").mkdir()
    status, out, err = command(capsys, "report", str(tmp_path))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"The report can't be written into {tmp_path}" in err
    assert "Is a directory" in err


def test_a_report_is_written_under_the_lock_that_a_sweep_writes_its_own_under(
    capsys, tmp_path, monkeypatch
) -> None:
    with Ledger(tmp_path):
        pass

    def write(rows, folder) -> None:
        with (folder / MARKS / "report.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr("lpcvc_zoo.bench.report.write_report", write)
    assert command(capsys, "report", str(tmp_path))[0] == 0


WORK = {
    ("export", CHEAPEST): "lpcvc_zoo.exporting.onnx.export",
    ("quantize", CHEAPEST): "lpcvc_zoo.exporting.cache.cached_export",
    ("evaluate", CHEAPEST): "lpcvc_zoo.retrieval.evaluate.evaluate",
    ("export", CHEAPEST, "--text-length", "auto"): "lpcvc_zoo.retrieval.lengths.evaluate_lengths",
}


@pytest.mark.parametrize("arguments", WORK, ids=" ".join)
def test_what_keeps_a_machine_busy_waits_for_latency_measurements_of_others(
    arguments, capsys, cache, tmp_path, monkeypatch
) -> None:
    def looked(*_: object, **__: object) -> None:
        with (cache / "measure.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ZooError("seen")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WORK[arguments], looked)
    assert "Error: seen" in command(capsys, *arguments)[2]


@pytest.mark.parametrize("name", ["export", "quantize"])
def test_a_cache_that_is_a_file_is_named(name: str, capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    status, _, err = command(capsys, name, CHEAPEST)
    assert (status, f"{tmp_path / 'file' / 'measure.lock'} can't be written" in err) == (1, True)


def test_version_and_completion_are_there(capsys) -> None:
    status, out, _ = command(capsys, "--version")
    assert (status, out.strip()) == (0, f"lpcvc-zoo {lpcvc_zoo.__version__}")
    assert "--install-completion" in command(capsys, "--help")[1]


@pytest.mark.slow
def test_export_profile_evaluate_sweep_and_report_work_together(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = from_json(capsys, "export", CHEAPEST, *SAMPLE)
    folder = tmp_path / "exported" / f"{CHEAPEST}-lpcvc2026_sample"
    assert (folder / manifest["image"]["file"]).is_file()
    said = command(capsys, "evaluate", str(folder), "--image-size", "0")[2]
    assert "is made already, under contract lpcvc2026_sample: expected no --image-size" in said
    assert manifest["text"]["parity"]["min_cosine"] >= 0.9999

    profiles = from_json(capsys, "profile", CHEAPEST, *SAMPLE, "--threads", "1", "--operators")
    assert profiles["image"]["threads"] == 1
    assert profiles["text"]["latency"]["median_ms"] > 0
    assert profiles["text"]["operators"]

    made = two_photos(tmp_path / "two photos")
    status, said, err = command(capsys, "evaluate", CHEAPEST, *SAMPLE, "--dataset", str(made), "--json")
    shown = command(capsys, "evaluate", CHEAPEST, *SAMPLE, "--dataset", str(made))[1]
    assert "text to image: no recall@5 and no recall@10 of 2 images" in shown
    assert "image to text: no" not in shown
    assert status == 0
    assert f"untrained, so this recall is chance. A published checkpoint: {CHEAPEST}.conse_minilm" in err
    in_torch = json.loads(said)
    on_onnx = from_json(
        capsys, "evaluate", CHEAPEST, *SAMPLE, "--dataset", str(made), "--target", "onnxruntime",
        "--save-embeddings", "e.npz",
    )  # fmt: skip
    assert in_torch["recalls"] == on_onnx["recalls"]
    assert Path("e.npz").is_file()

    options = ("--untrained", *SAMPLE, "--jobs", "1", "--threads", "1")
    rows = from_json(capsys, "sweep", "--models", CHEAPEST, *options)
    assert [(row["entry"], row["weights"], row["error"]) for row in rows] == [(CHEAPEST, "untrained", None)]
    Path("results/report.html").unlink()
    assert from_json(capsys, "report")[0]["entry"] == CHEAPEST
    assert Path("results/report.html").is_file()


def test_an_empty_pretrained_is_no_leave_to_take_random_weights(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = command(capsys, "export", CHEAPEST, "--pretrained", "", "--out", "nowhere")
    assert (status, "name the checkpoint file in it" in " ".join(err.split())) == (1, True)
