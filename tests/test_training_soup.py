"""Soups are tasted and labelled at what their checkpoints were trained at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from training_tiny import NAME, drawings

from lpcvc_zoo import build
from lpcvc_zoo.cli import main
from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.model import Towers
from lpcvc_zoo.training import soup as kitchen
from lpcvc_zoo.training.checkpoint import facts_of, save_towers
from lpcvc_zoo.training.soup import soup
from lpcvc_zoo.weights.read import read_facts

pytestmark = pytest.mark.usefixtures("tiny_registered")
TRAINED_AT = {"image_size": 64, "text_length": 20, "contract": "lpcvc2026_sample"}


def checkpoint(path: Path, **at: Any) -> Path:
    model = build(NAME, fuse=False, **(TRAINED_AT | at))
    towers = Towers(model.image_tower, model.text_tower)
    save_towers(towers, path, facts_of(model))
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [checkpoint(tmp_path / f"{name}.safetensors") for name in "ab"]


def test_a_soup_is_made_at_what_its_checkpoints_were_trained_at(two, tmp_path) -> None:
    soup(NAME, two, str(drawings(tmp_path / "boxes", 4)), tmp_path / "soup.safetensors", method="uniform")
    facts = read_facts(tmp_path / "soup.safetensors")
    assert {name: facts[name] for name in TRAINED_AT} == TRAINED_AT


@pytest.mark.parametrize(
    ("what", "other"), [("image_size", 32), ("text_length", 16), ("contract", "lpcvc2026")]
)
def test_a_soup_of_differently_trained_ones_or_at_something_else_is_refused(
    two, tmp_path, monkeypatch, what, other
) -> None:
    monkeypatch.setattr(kitchen, "read_validation", lambda _: pytest.fail("it was tasted"))
    with pytest.raises(TrainingError, match=rf"needs one {what} .*what was asked for: {other}"):
        soup(NAME, two, "x", tmp_path / "soup.safetensors", **{what: other})
    third = checkpoint(tmp_path / "c.safetensors", **{what: other})
    with pytest.raises(TrainingError, match=rf"needs one {what} .*c\.safetensors: {other}"):
        soup(NAME, [*two, third], "x", tmp_path / "soup.safetensors")


def test_a_soup_is_not_chosen_by_what_its_checkpoints_were_trained_on(two, tmp_path) -> None:
    boxes, others = drawings(tmp_path / "coco" / "train", 4), drawings(tmp_path / "coco" / "val", 4, seed=1)
    trained_on = [f"image {sha256_of(path)}" for path in sorted(boxes.glob("*.png"))]
    (tmp_path / "data.txt").write_text("\n".join([*trained_on, "text " + 64 * "0"]) + "\n")
    with pytest.raises(TrainingError, match=r"4 of the 4 images .* trained on .*Name a validation set"):
        soup(NAME, two, str(boxes), tmp_path / "soup.safetensors")
    shutil.copy(others / "001.png", boxes / "001.png")
    shutil.copy(others / "002.png", boxes / "002.png")
    said: list[str] = []
    soup(NAME, two, str(boxes), tmp_path / "soup.safetensors", say=said.append)
    left_out = "2 of the 4 images to validate on were trained on for these checkpoints and are left out."
    assert said == [left_out]
    for validation in (others, tmp_path / "coco"):  # a tree brings the part to validate on, as in training
        assert soup(NAME, two, str(validation), tmp_path / "soup.safetensors").chosen.recall.value >= 0


def test_of_checkpoints_that_were_moved_it_is_said_that_their_pictures_are_not_known(two, tmp_path) -> None:
    boxes, said = drawings(tmp_path / "boxes", 4), list[str]()
    first = soup(NAME, two, str(boxes), tmp_path / "soup.safetensors")
    assert first.chosen.checkpoints
    soup(NAME, [str(tmp_path / "soup.safetensors"), *two], str(boxes), tmp_path / "x.pt", say=said.append)
    assert said == [
        f"No data.txt lies beside {tmp_path / 'soup.safetensors'}: what they were trained on is not known, "
        "and not left out."
    ]


@pytest.mark.parametrize("out", ["file/soup.safetensors", "folder"])
def test_a_place_that_takes_no_file_is_refused_before_tasting(two, tmp_path, monkeypatch, out) -> None:
    monkeypatch.setattr(kitchen, "read_validation", lambda _: pytest.fail("it was tasted"))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainingError, match=f"{out} can't be written"):
        soup(NAME, two, "x", tmp_path / out)


def test_the_command_says_how_to_score_the_soup(two, tmp_path, capsys) -> None:
    path, data = str(tmp_path / "soup.safetensors"), str(drawings(tmp_path / "boxes", 4))
    with pytest.raises(SystemExit) as ended:
        main(["soup", NAME, *map(str, two), "--validation", data, "--out", path])
    assert ended.value.code == 0
    sizes = "--contract lpcvc2026_sample --image-size 64 --text-length 20"
    assert f"Score it: lpcvc-zoo evaluate {NAME} --pretrained {path} {sizes}" in capsys.readouterr().out
