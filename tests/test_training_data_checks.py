"""What a run says of its data before it begins, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from training_tiny import NAME, drawings

from lpcvc_zoo.errors import DatasetError, TrainingError
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.training import reading
from lpcvc_zoo.training.defaults import recipe_for
from lpcvc_zoo.training.progress import RunProgress
from lpcvc_zoo.training.reading import read_checked
from lpcvc_zoo.training.recipe import checked
from lpcvc_zoo.training.sources import TrainingData

pytestmark = pytest.mark.usefixtures("tiny_registered")


class Heard(RunProgress):
    """Everything a run says, in order."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def at(self, what: str, done: int, total: int, note: str = "") -> None:
        self.lines.append(f"{what}: {done} of {total}")


def read(*, strict: bool = False, **data: object) -> tuple[TrainingData, TrainingData | None, list[str]]:
    recipe, heard = checked({"model": NAME, "data": data}, "test"), Heard()
    read = read_checked(recipe, heard, strict=strict)
    return read.data, read.held_out, heard.lines


def test_images_that_are_missing_are_counted_and_named_before_anything_else(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 24)
    for place in range(12):
        (folder / f"{place:03}.png").unlink()
    train, held_out, lines = read(pairs=str(folder), hold_out=0.25)
    assert held_out is not None
    assert len(train.images) + len(held_out.images) == 12
    assert lines[0].startswith("warning: 24 problems: captions.csv, row 2: ")
    assert "000.png" in lines[0]
    assert lines[0].endswith("and 19 more")
    with pytest.raises(DatasetError, match=r"The data has flaws; 24 problems: captions\.csv, row 2"):
        read(pairs=str(folder), hold_out=0.25, strict=True)


def test_images_that_can_not_be_read_are_left_out_and_named(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 12)
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:200])
    Image.open(folder / "005.png").resize((400, 400)).save(folder / "005.png", format="JPEG")
    (folder / "005.png").write_bytes((folder / "005.png").read_bytes()[:-300])
    (folder / "007.png").write_text("<html>not found</html>")
    for data in ({"hold_out": 0.25}, {"validation": str(drawings(tmp_path / "other", 4, seed=1))}):
        train, held_out, lines = read(pairs=str(folder), **data)
        assert held_out is not None
        of_folder = [image for part in (train, held_out) for image in part.images if folder in image.parents]
        assert len(of_folder) == 9
        assert not any("drawing 3 " in text or "drawing 7 " in text for text in train.texts)
        (said,) = [line for line in lines if line.startswith("warning: 3 problems")]
        assert f"{folder / '003.png'}: is no whole image that Pillow can read" in said
        with pytest.raises(DatasetError, match=r"The data has flaws; 3 problems: .*003\.png: is no"):
            read(pairs=str(folder), strict=True, **data)


def test_the_size_of_the_cache_and_the_progress_of_hashing_are_shown(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "WORTH_SAYING", 1)
    _, _, lines = read(pairs=str(drawings(tmp_path / "boxes", 4)), hold_out=0)
    assert lines[0].startswith("The images' pixels take")
    assert lines[1:] == [f"hashes of the images trained on: {done} of 4" for done in range(1, 5)]


def test_what_is_held_out_is_never_trained_on_and_stays_the_same(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 12)
    rank = lambda path: sha256(f"{path.name}|{path.stat().st_size}".encode()).digest()  # noqa: E731
    ranked = sorted(folder.glob("*.png"), key=rank)
    for _ in range(2):
        train, held_out, _ = read(pairs=str(folder), hold_out=0.25)
        assert held_out is not None
        assert {image.name for image in held_out.images} == {path.name for path in ranked[:3]}
        assert len({*train.images} | {*held_out.images}) == 12


def test_copies_of_a_picture_are_never_on_both_sides(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 24)
    rows = (folder / "captions.csv").read_text().splitlines()[1:]
    with (folder / "captions.csv").open("a") as file:
        for row in rows:
            shutil.copy(folder / row[:7], folder / f"x{row[:7]}")
            file.write(f"x{row}\n")
    train, held_out, _ = read(pairs=str(folder), hold_out=0.25)
    assert held_out is not None
    assert (len(train.images), len(held_out.images)) == (36, 12)
    sides = [
        {image.read_bytes() for image in part.images if isinstance(image, Path)} for part in (train, held_out)
    ]
    assert not sides[0] & sides[1]


def test_a_picture_with_more_copies_than_may_be_held_out_is_trained_on(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 12)
    for place in range(1, 9):
        shutil.copy(folder / "000.png", folder / f"{place:03}.png")
    _, held_out, _ = read(pairs=str(folder), hold_out=0.25)
    assert held_out is not None
    assert {image.name for image in held_out.images} == {"009.png", "010.png", "011.png"}


def test_too_few_images_to_hold_any_out_is_said(tmp_path) -> None:
    with pytest.raises(TrainingError, match="too few to hold out 5%"):
        read(pairs=str(drawings(tmp_path / "few", 3)), hold_out=0.05)


@pytest.mark.parametrize("count", [4, 10, 30])
def test_one_picture_alone_is_never_held_out_for_all_texts_there_would_be_its_own(tmp_path, count) -> None:
    train, held_out, _ = read(pairs=str(drawings(tmp_path / "few", count)), hold_out=0.05)
    assert held_out is not None
    assert (len(train.images), len(held_out.images)) == (count - 2, 2)
    assert held_out.tells_models_apart


def test_validating_on_what_is_trained_on_is_refused_whatever_the_files_are_called(tmp_path) -> None:
    folder, other = drawings(tmp_path / "boxes", 8), drawings(tmp_path / "other", 8, seed=1)
    with pytest.raises(TrainingError, match=r"8 of the 8 images to validate on .*boxes/000\.png"):
        read(pairs=str(folder), validation=str(folder))
    shutil.copy(folder / "002.png", other / "003.png")
    with pytest.raises(TrainingError, match=r"1 of the 8 .*other/003\.png \(trained on as .*boxes/002\.png"):
        read(pairs=str(folder), validation=str(other))


def test_the_few_pictures_that_a_large_collection_holds_twice_are_only_left_out(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(reading, "BY_CHANCE", 0.2)
    folder, other = drawings(tmp_path / "boxes", 8), drawings(tmp_path / "other", 8, seed=1)
    shutil.copy(folder / "002.png", other / "003.png")
    _, held_out, lines = read(pairs=str(folder), validation=str(other))
    assert held_out is not None
    assert {image.name for image in held_out.images} == {f"{place:03}.png" for place in (0, 1, 2, 4, 5, 6, 7)}
    assert lines[-1].startswith("1 of the 8 images to validate on are trained on as well and are left out")


def test_captions_of_the_benchmark_that_are_left_out_are_counted(tmp_path) -> None:
    folder = drawings(tmp_path / "boxes", 4)
    with (folder / "captions.csv").open("a") as file:
        file.write(f'000.png,"{photos.load().texts[0]}"\n')
    _, _, lines = read(pairs=str(folder), hold_out=0)
    assert lines[-1].endswith("captions of the bundled benchmark must never be trained on: 1")


def coco_tree(root: Path, parts: Sequence[str]) -> str:
    for part in parts:
        names = sorted(path.name for path in drawings(root / part, 4).glob("*.png"))
        (root / "annotations").mkdir(exist_ok=True)
        document = {
            "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
            "annotations": [{"image_id": place, "caption": name} for place, name in enumerate(names)],
        }
        (root / "annotations" / f"captions_{part}.json").write_text(json.dumps(document))
    return str(root)


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        (("train2014", "val2014", "train2017", "val2017"), ("train2017", "val2017")),
        (("train2014", "val2014", "train2017"), ("train2014", "val2014")),
        (("train2014", "train2017"), ("train2017",)),
        (("train2017", "val2014"), ("train2017",)),
        (("train2017", "val2017"), ("train2017", "val2017")),
    ],
)
def test_cocos_newest_pair_of_one_year_is_taken_and_named(tmp_path, parts, taken) -> None:
    """train2017 holds most pictures of val2014."""
    said: list[str] = []
    root = coco_tree(tmp_path / "coco", parts)
    made = recipe_for(
        NAME, root, pretrained=None, contract="lpcvc2026", validation=None, say=said.append
    ).data
    files = [*made.pairs, *filter(None, [made.validation])]
    assert tuple(Path(file.path).stem.removeprefix("captions_") for file in files) == taken
    names = " and ".join(f"captions_{part}.json" for part in taken)
    several = [f"{root}/annotations has several years, which share pictures; taken: {names}."]
    assert said == [*(several if parts != taken else []), f"{NAME} learns from untrained weights."]
