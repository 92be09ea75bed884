"""Several processes compute what one does, BatchNorm included; only the first one needs the run's folder.

Run as a script, this file is one of them: it trains in the working folder, is stopped, and goes on.
"""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from tiny import make_towers, tiny_entry
from torch import nn
from training_tiny import drawings, environment

from lpcvc_zoo import registry
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.model import Towers
from lpcvc_zoo.training.norms import shared_statistics
from lpcvc_zoo.training.recipe import Recipe, checked
from lpcvc_zoo.training.run import train
from lpcvc_zoo.training.steps import Stepper

NORMS = "tiny_norms"


def recipe(data: str) -> Recipe:
    document = {
        "model": NORMS, "contract": "lpcvc2026_sample", "epochs": 2, "batch_size": 8,
        "augment": {"crop": 0.8}, "optimiser": {"lr": 0.01, "ema": 0.9},
        "data": {"pairs": data, "hold_out": 0.25, "siblings": 2},
    }  # fmt: skip
    return checked(document, "test")


def norm_towers() -> Towers:
    """The tiny towers with BatchNorm in both: timm's with its activation, and one of vectors."""
    towers = make_towers()
    _, _, *rest = towers.image
    towers.image = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8, bias=False), BatchNormAct2d(8), *rest)
    towers.text.projection = nn.Sequential(nn.BatchNorm1d(8), towers.text.projection)
    return towers


@contextmanager
def norms_registered():
    entries = registry._found().entries
    entries[NORMS] = tiny_entry(NORMS, text=TextSpec(causal=False), make=norm_towers)
    try:
        yield
    finally:
        del entries[NORMS]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cache")
    with norms_registered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPCVC_ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data") / "boxes")


def on_two_machines(folder: Path, data: Path) -> None:
    """This file in two processes that share no folder but the data's."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(server.getsockname()[1]) for server in (one, other)]
    running = []
    for rank in ("0", "1"):
        (folder / rank).mkdir()
        place = {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        command = [sys.executable, __file__, str(data), *ports]
        process = subprocess.Popen(
            command, cwd=folder / rank, env=environment(folder / rank / "cache") | place,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        running.append(process)
    for process in running:
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said


def column(run: Path, name: str) -> list[float]:
    with (run / "steps.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_normalise_as_one_does_and_only_the_first_has_the_run_to_go_on_with(
    data, tmp_path
) -> None:
    on_two_machines(tmp_path, data)
    train(recipe(str(data)), tmp_path / "alone", device="cpu")
    run, alone = tmp_path / "0" / "run", tmp_path / "alone"
    assert not (tmp_path / "1" / "run").exists()
    assert column(run, "loss") == pytest.approx(column(alone, "loss"), rel=1e-5)
    weights = load_file(run / "last.safetensors")
    assert {name for name in weights if "running_mean" in name} == {
        "image.1.running_mean", "text.projection.0.running_mean"
    }  # fmt: skip
    for name, expected in load_file(alone / "last.safetensors").items():
        # BatchNorm undoes what a token of every text adds: its gradient is rounding, and AdamW's step whole
        if name != "text.token_embedding.weight":
            torch.testing.assert_close(weights[name], expected, rtol=1e-3, atol=1e-5)


def test_shared_statistics_of_one_process_are_batch_norms_own(tmp_path) -> None:
    """The arithmetic without other processes: values, gradients, running statistics, half precision, eval."""
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/at")
    try:
        for make, shape in ((partial(BatchNormAct2d, 3), (4, 3, 5, 6)), (partial(nn.BatchNorm1d, 3), (7, 3))):
            plain, shared = make(), make()
            shared = shared_statistics(shared, torch.device("cpu"))
            for step in range(2):
                given = torch.randn(shape, generator=torch.Generator().manual_seed(step)) * 3 + 100
                said: list[Any] = []
                for norm in (plain, shared):
                    inputs = given.clone().requires_grad_()
                    outputs = norm(inputs)
                    outputs.pow(3).sum().backward()
                    said.append([outputs, inputs.grad, *norm.state_dict().values(), norm.weight.grad])
                for one, other in zip(*said, strict=True):
                    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
            assert shared(given.bfloat16()).dtype == torch.bfloat16
            plain(given.bfloat16())
            torch.testing.assert_close(shared.eval()(given), plain.eval()(given), rtol=1e-3, atol=1e-3)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    data_folder, *both = sys.argv[1:]
    torch.set_num_threads(1)
    step = Stepper.step

    def failing(self: Stepper, batch: Any) -> dict[str, float]:
        if self.taken == 3:
            raise ConnectionError("the power is gone")
        return step(self, batch)

    with norms_registered():
        for change, port in zip((failing, step), both, strict=True):
            os.environ["MASTER_PORT"] = port
            Stepper.step = change  # type: ignore[method-assign]
            try:
                train(recipe(data_folder), "run", device="cpu", save_steps=1)
            except ConnectionError:
                assert change is failing
