"""Whole runs of the tiny entry: they learn, they resume to the bit, they stop when they should."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from training_tiny import NAME, NORMED, drawings, registered, start

from lpcvc_zoo import build
from lpcvc_zoo.cli import main
from lpcvc_zoo.errors import TrainingError, WeightsError
from lpcvc_zoo.retrieval.evaluate import evaluate
from lpcvc_zoo.training.defaults import recipe_for
from lpcvc_zoo.training.recipe import Recipe, checked, differences, read_recipe
from lpcvc_zoo.training.run import train
from lpcvc_zoo.training.steps import Stepper
from lpcvc_zoo.weights.read import read_facts

SAMPLE = "lpcvc2026_sample"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cache")
    with registered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPCVC_ZOO_CACHE", str(folder))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the processes started below: more would round otherwise
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data") / "boxes")


def recipe(data: Path, /, **fields: Any) -> Recipe:
    document = {
        "model": NAME, "contract": SAMPLE, "epochs": 3, "batch_size": 8, "augment": {"crop": 0.8},
        "data": {"pairs": str(data), "hold_out": 0.25}, "optimiser": {"lr": 0.01}, **fields,
    }  # fmt: skip
    return checked(document, "test")


def written(path: Path, data: Path, /, **fields: Any) -> Path:
    """The recipe as a TOML file: inline tables, and plain values as JSON has them."""
    given = recipe(data, **fields).model_dump(mode="json", exclude_unset=True)
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in given.items()))
    return path


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def stopping(patch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let a run take so many steps, then end it as abruptly as an exception can."""
    step, left = Stepper.step, after

    def failing(self: Stepper, batch: Any) -> dict[str, float]:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("the power is gone")
        return step(self, batch)

    patch.setattr(Stepper, "step", failing)


def losses(folder: Path) -> list[float]:
    with (folder / "steps.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(folder: Path, name: str = "last.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits: every loss, both checkpoints."""
    assert losses(one) == losses(other)
    for name in ("model.safetensors", "last.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    ignored = {"seconds"}
    rows = [
        [
            {key: row[key] for key in row if key not in ignored}
            for row in csv.DictReader((run / "epochs.csv").open())
        ]
        for run in (one, other)
    ]
    assert rows[0] == rows[1]


def test_a_run_learns_and_its_checkpoint_builds_and_scores_as_validated(data, tmp_path) -> None:
    result = train(recipe(data, epochs=12, augment={"crop": 1, "flip": "never"}), tmp_path / "run")
    measured = losses(tmp_path / "run")
    assert len(measured) == result["steps"] == 12 * 2
    assert sum(measured[-4:]) < 0.8 * sum(measured[:4])
    model = build(NAME, pretrained=tmp_path / "run" / "model.safetensors", contract=SAMPLE)
    assert "model.safetensors@" in model.weights
    held_out = [json.loads(row["recall"]) for row in csv.DictReader((tmp_path / "run" / "epochs.csv").open())]
    assert result["recall"] == max(held_out)
    assert held_out.index(max(held_out)) + 1 == result["best_epoch"]
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_that_was_cut_off_is_forgotten_and_the_run_goes_on(data, tmp_path, monkeypatch) -> None:
    chosen, out = recipe(data, epochs=2), tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping(patch, after=3)
        with pytest.raises(ConnectionError):
            train(chosen, out, save_steps=1)
    with (out / "steps.csv").open("a") as file:
        file.write("1")  # of step 13, say: it would be step 1, without a loss
    assert train(chosen, out)["epochs"] == 2
    train(chosen, tmp_path / "undisturbed")
    assert_same_run(out, tmp_path / "undisturbed")


def test_weights_built_at_something_else_than_they_were_trained_at_are_told(data, tmp_path, caplog) -> None:
    train(recipe(data, epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    build(NAME, pretrained=path, contract=SAMPLE)
    assert "trained at" not in caplog.text
    build(NAME, pretrained=path, image_size=64)
    assert f"model.safetensors for {NAME}: trained at image_size 32, built at 64." in caplog.text
    assert f"trained at contract {SAMPLE}, built at lpcvc2026." in caplog.text


def test_a_run_says_that_its_weights_had_no_learnt_scale_and_with_which_it_begins(data, tmp_path) -> None:
    train(recipe(data, epochs=1), tmp_path / "first")
    towers = weights(tmp_path / "first") | {"logit_scale": torch.tensor(0.0)}
    save_file(towers, tmp_path / "distilled.safetensors")
    shown = io.StringIO()
    chosen = recipe(data, epochs=1, pretrained=str(tmp_path / "distilled.safetensors"))
    train(chosen, tmp_path / "run", console=Console(file=shown))
    assert "has no learnt scale of cosines (its logit_scale is 0): it starts from 14.3" in shown.getvalue()
    with (tmp_path / "run" / "steps.csv").open() as file:
        assert float(next(csv.DictReader(file))["scale"]) == pytest.approx(1 / 0.07, rel=0.02)


def test_tensorboard_shows_every_step_once_also_after_a_stop(data, tmp_path, monkeypatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    stopping(monkeypatch, after=5)
    chosen = recipe(data, epochs=4)
    with pytest.raises(ConnectionError):
        train(chosen, tmp_path / "run", save_steps=3)
    monkeypatch.undo()
    train(chosen, tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [*range(1, 9)]
    assert [event.step for event in events.Scalars("validation/recall")] == [2, 4, 6, 8]
    assert len(losses(tmp_path / "run")) == 8


def test_the_recall_of_an_epoch_is_what_evaluate_gives(data, tmp_path) -> None:
    """A validation set of its own, so that the same set can be scored by the other road."""
    held_out = drawings(tmp_path / "held_out", 12, seed=1)
    chosen = recipe(data, data={"pairs": str(data), "validation": str(held_out)})
    result = train(chosen, tmp_path / "run")
    model = build(NAME, pretrained=tmp_path / "run" / "model.safetensors", contract=SAMPLE)
    assert evaluate(model, held_out).recall(10).value == pytest.approx(result["recall"], abs=0.05)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="plain"),
        pytest.param(
            {"model": NORMED, "optimiser": {"lr": 0.01, "ema": 0.9}, "accumulate": 2},
            id="norms, dropout, average, parts",
        ),
        pytest.param(
            {
                "losses": [{"kind": "feature", "teacher": "t", "towers": ["image"]}],
                "teachers": [{"name": "t", "model": NAME, "live": True}],
                "augment": {"mix": 0.5},
            },
            id="a live teacher, mixed pictures",
        ),
    ],
)
def test_a_run_stopped_anywhere_and_resumed_is_the_undisturbed_one_bit_for_bit(
    data, tmp_path, monkeypatch, fields
) -> None:
    if "teachers" in fields:
        train(recipe(data, epochs=1), tmp_path / "teacher")
        checkpoint = str(tmp_path / "teacher" / "model.safetensors")
        fields = fields | {"teachers": [fields["teachers"][0] | {"pretrained": checkpoint}]}
    chosen = recipe(data, **fields)
    train(chosen, tmp_path / "whole")
    for allowed in (3, 1, 2, 100):  # steps until the power is gone again; saved after each one
        with monkeypatch.context() as patch:
            stopping(patch, after=allowed)
            try:
                train(chosen, tmp_path / "torn", save_steps=1)
            except ConnectionError:
                assert allowed < 100
    assert_same_run(tmp_path / "whole", tmp_path / "torn")


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(data, cache, tmp_path) -> None:
    path = written(tmp_path / "recipe.toml", data, epochs=15, optimiser={"lr": 0.01, "ema": 0.9})
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    running = start(cache, "train", str(path), "--out", str(torn), "--save-steps", "1")
    while running.poll() is None and not (torn / "state.pt").is_file():
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (torn / "result.json").is_file()
    train(read_recipe(path), torn)
    train(read_recipe(path), whole)
    assert_same_run(whole, torn)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(data, cache, tmp_path) -> None:
    out = tmp_path / "run"
    running = start(
        cache, "train", NAME, "--data", str(data), "--contract", SAMPLE, "--epochs", "9999", "--out", str(out)
    )  # fmt: skip
    while running.poll() is None and not (out / "steps.csv").is_file():
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "To go on, run the same again: lpcvc-zoo train tiny" in said
    assert torch.load(out / "state.pt", weights_only=True)["stepper"]["taken"] > 0


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(data, cache, tmp_path) -> None:
    fields = {
        "epochs": 2,
        "data": {"pairs": str(data), "hold_out": 0.25, "siblings": 2, "negatives": 1},
        "losses": [{"kind": "clip"}, {"kind": "negatives"}, {"kind": "siglip", "weight": 0.1}],
    }
    path = written(tmp_path / "recipe.toml", data, **fields)
    two = start(cache, "train", str(path), "--out", str(tmp_path / "2"), processes=2)
    train(read_recipe(path), tmp_path / "1")
    said, _ = two.communicate(timeout=180)
    assert two.returncode == 0, said
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)
    one, other = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-5)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(data, tmp_path) -> None:
    for parts in (1, 4):
        train(recipe(data, epochs=1, accumulate=parts), tmp_path / str(parts))
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)
    assert losses(tmp_path / "1")[0] != losses(tmp_path / "1")[1]


def test_parts_of_a_batch_count_once_for_batch_norm(data, tmp_path) -> None:
    result = train(recipe(data, model=NORMED, epochs=2, accumulate=2), tmp_path / "run")
    counted = weights(tmp_path / "run")["image.1.num_batches_tracked"]
    assert int(counted) == 2 * result["steps"]


def test_workers_make_the_same_batches(data, tmp_path) -> None:
    for workers in (0, 2):
        train(recipe(data, epochs=2), tmp_path / str(workers), workers=workers)
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_a_frozen_tower_stays_as_it_was(data, tmp_path, frozen) -> None:
    train(recipe(data, epochs=1, freeze=[frozen]), tmp_path / "run")
    before = build(NAME, fuse=False, contract=SAMPLE)
    after = build(NAME, fuse=False, contract=SAMPLE, pretrained=tmp_path / "run" / "last.safetensors")
    for tower in ("image", "text"):
        old = getattr(before, f"{tower}_tower").state_dict()
        new = getattr(after, f"{tower}_tower").state_dict()
        assert all(old[name].equal(new[name]) for name in old) == (tower == frozen)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_its_weights_stay_float32(data, tmp_path, precision) -> None:
    chosen = recipe(data, epochs=6, precision=precision, augment={"crop": 1, "flip": "never"})
    train(chosen, tmp_path / "run")
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.float32}


def test_training_stops_early_once_recall_no_longer_rises(data, tmp_path) -> None:
    still = recipe(data, epochs=20, patience=2, optimiser={"lr": 1e-12, "weight_decay": 0})
    result = train(still, tmp_path / "run")
    assert (result["epochs"], result["best_epoch"]) == (3, 1)
    assert result["stopped"] == "no better recall in 2 epochs"
    assert train(still, tmp_path / "run") == result  # finished: nothing is done again


def test_a_folder_of_another_run_or_of_other_things_is_refused(data, tmp_path) -> None:
    train(recipe(data, epochs=1), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"another recipe.*\n.*epochs: 1 then, 2 now"):
        train(recipe(data, epochs=2), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    del written["augment"]["mix"]  # as a version without that field wrote it
    assert differences(json.dumps(written), recipe(data, epochs=1)) == []
    assert differences(json.dumps(written | {"gone": 1}), recipe(data, epochs=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(TrainingError, match="holds no run"):
        train(recipe(data), tmp_path / "other")


def test_a_run_does_not_go_on_with_other_data(data, tmp_path, monkeypatch) -> None:
    mine = drawings(tmp_path / "mine")
    from lpcvc_zoo.training import run as module

    monkeypatch.setattr(module, "_result", lambda run: (_ for _ in ()).throw(ConnectionError))
    with pytest.raises(ConnectionError):
        train(recipe(mine, epochs=1), tmp_path / "run")
    with (mine / "captions.csv").open("a") as file:
        file.write("000.png,one more caption.\n")
    with pytest.raises(TrainingError, match=r"there changed: the data to train on\."):
        train(recipe(mine, epochs=1), tmp_path / "run")


def repainted(path: Path) -> None:
    """Another picture of the same name and size in bytes."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("boxes/003.bmp", "the data to train on"),
        ("others/003.bmp", "the data to validate on"),
        ("start/model.safetensors", "the weights to start from"),
        ("teacher/model.safetensors", "what the teacher 'model' is"),
        ("said.npz", "what the teacher 'file' is"),
    ],
)
def test_a_run_goes_on_with_nothing_that_was_replaced_and_keeps_its_notes(
    made_of_files, tmp_path, monkeypatch, what, said
) -> None:
    shutil.copytree(made_of_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    chosen = made_of_these()
    stopping(monkeypatch, after=2)
    with pytest.raises(ConnectionError):
        train(chosen, "run", save_steps=1)
    notes = {name: Path("run", name).read_bytes() for name in ("data.txt", "made_of.json", "state.pt")}
    before = Path(what).read_bytes()
    repainted(Path(what))
    with pytest.raises(TrainingError, match=rf"Since run was begun, there changed: {said}\. Put back"):
        train(chosen, "run")
    assert {name: Path("run", name).read_bytes() for name in notes} == notes
    Path(what).write_bytes(before)
    with pytest.raises(ConnectionError):  # it goes on
        train(chosen, "run")


@pytest.fixture(scope="module")
def made_of_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all kinds that a run can be made of."""
    root = tmp_path_factory.mktemp("files")
    for name, count in (("boxes", 16), ("others", 4)):
        folder = drawings(root / name, count, seed=count)
        for path in folder.glob("*.png"):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
        captions = folder / "captions.csv"
        captions.write_text(captions.read_text().replace(".png", ".bmp"))
    for name in ("start", "teacher"):
        train(recipe(root / "boxes", epochs=1), root / name)
    names = [f"{place:03}.bmp" for place in range(16)]
    np.savez(root / "said.npz", image_files=names, image_embeddings=np.eye(16, dtype=np.float32))
    return root


def made_of_these() -> Recipe:
    alone = {"kind": "feature", "towers": ["image"]}
    return recipe(
        Path("boxes"),
        data={"pairs": "boxes", "validation": "others"},
        pretrained="start/model.safetensors",
        losses=[alone | {"teacher": "model"}, alone | {"teacher": "file"}],
        teachers=[
            {"name": "model", "model": NAME, "pretrained": "teacher/model.safetensors"},
            {"name": "file", "embeddings": "said.npz"},
        ],
    )


def test_a_run_of_an_earlier_version_is_refused(data, tmp_path) -> None:
    train(recipe(data, epochs=1), tmp_path / "run")
    (tmp_path / "run" / "made_of.json").unlink()
    with pytest.raises(TrainingError, match="a run of an earlier version"):
        train(recipe(data, epochs=1), tmp_path / "run")


@pytest.mark.parametrize("hold_out", [0, 0.25])
def test_a_finished_run_exports_its_lost_checkpoint_again_to_the_byte(data, tmp_path, hold_out) -> None:
    chosen, best = (
        recipe(data, data={"pairs": str(data), "hold_out": hold_out}),
        tmp_path / "run/model.safetensors",
    )
    result = train(chosen, tmp_path / "run")
    if hold_out and result["best_epoch"] != result["epochs"]:
        chosen = recipe(data, epochs=result["best_epoch"], data={"pairs": str(data), "hold_out": hold_out})
        shutil.rmtree(tmp_path / "run")
        result = train(chosen, tmp_path / "run")
    content = best.read_bytes()
    best.unlink()
    assert train(chosen, tmp_path / "run") == result
    assert best.read_bytes() == content


def test_a_finished_run_is_not_taken_for_one_of_another_recipe_data_or_checkpoint(data, tmp_path) -> None:
    mine, out = drawings(tmp_path / "mine"), tmp_path / "run"
    still = recipe(mine, optimiser={"lr": 1e-12, "weight_decay": 0})  # its first epoch stays the best
    train(still, out)
    content = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(content[:-1] + b"?")
    with pytest.raises(TrainingError, match=r"not what the finished run left there.*move this one away"):
        train(still, out)
    (out / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"is gone\. It was of epoch 1, .* to train anew"):
        train(still, out)
    (out / "model.safetensors").write_bytes(content)
    (out / "state.pt").unlink()  # to save space
    with pytest.raises(TrainingError, match="another recipe"):
        train(recipe(mine, epochs=4), out)
    repainted(mine / "000.png")
    with pytest.raises(TrainingError, match="there changed: the data to"):
        train(still, out)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"save_steps": 0}, "save_steps 0 and workers 0: expected at least 1 step"),
        ({"workers": -1}, "workers -1: expected .* at least 0 workers"),
        ({"device": "gpu"}, "The device 'gpu': expected auto, cpu or cuda; torch sees no GPU"),
        ({"device": "cuda"}, "The device 'cuda': .*torch sees no GPU"),
    ],
)
def test_options_that_can_t_be_are_refused_before_anything_is_read(
    tmp_path, monkeypatch, options, complaint
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=complaint):
        train(recipe(tmp_path / "nowhere"), tmp_path / "run", **options)


def test_a_folder_that_can_t_be_made_is_said(data, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"file/run can't be written \(expected a folder.*another --out"):
        train(recipe(tmp_path / "nowhere"), tmp_path / "file" / "run")


@pytest.mark.parametrize(("limit", "file"), [(100_000, "run/state.pt"), (20_000, "pixels")])
def test_a_full_disk_ends_a_run_that_can_go_on(data, tmp_path, monkeypatch, limit, file) -> None:
    import resource

    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "pixels"))
    chosen, out = recipe(data, epochs=1, data={"pairs": str(data), "hold_out": 0}), tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(
            TrainingError, match=rf"{file}.* can't be written .*Free some space and run the same"
        ):
            train(chosen, out, save_steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert train(chosen, out)["epochs"] == 1


def test_a_cache_that_can_t_be_used_is_said(data, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrainingError, match=r"The cache folder .*/file can't be used: .*LPCVC_ZOO_CACHE"):
        train(recipe(data), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_with_advice(data, tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"not a number at step \d+.*lower optimiser.lr"):
        train(
            recipe(data, epochs=8, optimiser={"lr": 1e30, "clip_norm": None, "warmup": 0}), tmp_path / "run"
        )


def test_the_command_trains_on_a_coco_tree_and_says_how_to_score(tmp_path, capsys, monkeypatch) -> None:
    root = tmp_path / "coco"
    for part, count in (("train2017", 16), ("val2017", 8)):
        folder = drawings(root / part, count, seed=len(part))
        rows = list(csv.DictReader((folder / "captions.csv").open()))
        (folder / "captions.csv").unlink()
        names = sorted({row["image"] for row in rows})
        document = {
            "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
            "annotations": [
                {"image_id": names.index(row["image"]), "caption": row["caption"]} for row in rows
            ],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"captions_{part}.json").write_text(json.dumps(document))
    out = tmp_path / "run"
    arguments = ["train", NAME, "--data", str(root), "--contract", SAMPLE, "--epochs", "1", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "16 images" in said
    assert "validated on 8 images; no early stopping: all epochs are run, and the best by recall@" in said
    assert f"lpcvc-zoo evaluate tiny --pretrained {out}" in said
    assert json.loads((out / "recipe.json").read_text())["data"]["validation"]["path"].endswith(
        "val2017.json"
    )


def test_the_command_to_score_names_the_sizes_that_are_not_the_entrys_own(data, tmp_path, capsys) -> None:
    path = written(tmp_path / "recipe.toml", data, epochs=1, image_size=64, text_length=16)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path), "--out", str(tmp_path / "run")])
    assert ended.value.code == 0
    assert f"--contract {SAMPLE} --image-size 64 --text-length 16\n" in capsys.readouterr().out


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_before_the_first_step_says_whether_there_is_a_state(
    data, tmp_path, monkeypatch, capsys, begun
) -> None:
    path, out = written(tmp_path / "recipe.toml", data), tmp_path / "run"
    if begun:
        stopping(monkeypatch, after=1)
        with pytest.raises(ConnectionError):
            train(read_recipe(path), out, save_steps=1)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lpcvc_zoo.training.run.made_ready", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path), "--out", str(out)])
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert (f"the state is in {out}" in said, "no state was saved yet" in said) == (begun, not begun)


def test_defaults_suit_the_data(data, tmp_path) -> None:
    for part, count in (("train", 12), ("val", 4)):
        drawings(tmp_path / "split" / part, count)
    said: list[str] = []
    make = partial(recipe_for, NAME, pretrained=None, contract=SAMPLE, validation=None, say=said.append)
    split, plain = make(str(tmp_path / "split")), make(str(data))
    assert split.data.validation is not None
    assert split.data.validation.path.endswith("val")
    assert split.batch_size == 2  # at least four steps an epoch
    assert (plain.data.validation, plain.data.hold_out, plain.batch_size) == (None, 0.2, 4)
    assert said == 2 * [f"{NAME} learns from untrained weights."]
    held_out = str(tmp_path / "split" / "val")
    named = make(str(data), pretrained="x.pt", validation=held_out)
    assert named.data.validation is not None
    assert named.data.validation.path == held_out
    assert len(said) == 2
    assert named.optimiser.lr < plain.optimiser.lr  # fine-tuning


@pytest.mark.parametrize(("count", "validates", "batch"), [(2, False, 2), (3, False, 2), (4, True, 2)])
def test_of_few_images_none_is_held_out(tmp_path, count, validates, batch) -> None:
    said: list[str] = []
    folder = str(drawings(tmp_path / "few", count))
    made = recipe_for(NAME, folder, pretrained=None, contract=SAMPLE, validation=None, say=said.append)
    assert (made.validates, made.batch_size) == (validates, batch)
    assert any("nothing is validated" in line for line in said) == (not validates)


def test_of_millions_of_images_some_are_held_out_too(data, monkeypatch) -> None:
    many = SimpleNamespace(images=range(12_000_000))
    monkeypatch.setattr("lpcvc_zoo.training.defaults.read_training", lambda _: (many, None))
    made = recipe_for(NAME, str(data), pretrained=None, contract=SAMPLE, validation=None, say=str)
    assert round(made.data.hold_out * len(many.images)) == 500


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([NAME], "name a folder of captioned images"),
        (["recipe.toml", "--data", "x"], "change them in the file"),
        (["recipe.toml", "--contract", "lpcvc2026"], "change them in the file"),
        (["recipe.toml", "--save-steps", "0"], "--save-steps"),
        (["recipe.toml", "--workers", "-1"], "--workers"),
        (["tini", "--data", "x"], "Did you mean 'tiny'"),
        (["recipe.toml"], r"recipe.toml can't be read"),
        ([NAME, "--data", "nowhere/"], "does not exist"),
        ([NAME, "--data", "photos"], "bundled benchmark"),
    ],
)
def test_a_wrong_command_says_what_to_do(tmp_path, monkeypatch, capsys, arguments, complaint) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments, "--out", str(tmp_path / "run")])
    assert ended.value.code in (1, 2)
    assert re.search(complaint, " ".join(capsys.readouterr().err.replace("│", " ").split()))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors"])
def test_a_checkpoint_brings_the_pixels_that_it_was_trained_with(data, tmp_path, name) -> None:
    train(recipe(data, epochs=1), tmp_path / "run")
    path = tmp_path / "run" / name
    facts = read_facts(path)
    assert facts["entry"] == NAME
    other = facts["preprocessing"] | {"interpolation": "bilinear"}
    again = tmp_path / "again.safetensors"
    save_file(load_file(path), again, {"lpcvc_zoo": json.dumps({"preprocessing": other})})
    assert build(NAME, pretrained=again, contract=SAMPLE).preprocessing.interpolation == "bilinear"
    for broken in ("{}]", '{"preprocessing": {"mean": 1}}', "[1]"):
        save_file(load_file(path), again, {"lpcvc_zoo": broken})
        with pytest.raises(WeightsError, match=r"can't be read|which is none"):
            build(NAME, pretrained=again, contract=SAMPLE)


def test_looking_at_recipes_imports_no_torch() -> None:
    code = "import sys, lpcvc_zoo.training.recipe; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
