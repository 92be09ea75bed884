"""The recipe of the EfficientViT towers: pictures made as it goes, and a run that goes on where it was."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from lpcvc_zoo import build

RECIPES = Path(__file__).parent.parent / "benchmarks" / "recipes"
MAGENTA = (255, 0, 255)


@pytest.fixture(scope="module", autouse=True)
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        yield
        for name in ("scenes", "efficientvit_image", "make"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory) -> Path:
    """Green grounds, wide and high, and magenta things with a transparent rim."""
    folder = tmp_path_factory.mktemp("ingredients")
    for number, size in enumerate([(300, 160), (160, 300)]):
        save(Image.new("RGB", size, (0, 140, 0)), folder / "backgrounds" / f"{number:05d}.webp")
    for kind in ("cutouts", "drawings", "emoji"):
        thing = Image.new("RGBA", (90, 40))
        ImageDraw.Draw(thing).rectangle((5, 5, 85, 35), fill=(*MAGENTA, 255))
        save(thing, folder / kind / "00000.webp")
    return folder


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    image.save(path, lossless=True)


def test_every_picture_is_new_whole_and_hangs_on_the_generator_alone(ingredients: Path) -> None:
    from scenes import load_scenes

    scenes = load_scenes(ingredients, torch.device("cpu"))
    torch.manual_seed(3)
    first, other = scenes.batch(40, 64), scenes.batch(40, 64)
    torch.manual_seed(3)
    assert torch.equal(scenes.batch(40, 64), first)
    pictures = torch.cat([first, other])
    assert pictures.shape == (80, 3, 64, 64)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert len({picture.numpy().tobytes() for picture in pictures}) == 80
    assert scenes.batch(1, 64).isfinite().all()


def test_things_are_seen_as_often_as_the_recipe_says(ingredients: Path, monkeypatch) -> None:
    import scenes

    made = scenes.load_scenes(ingredients, torch.device("cpu"))
    monkeypatch.setattr(scenes, "PLAIN", 0.0)
    monkeypatch.setattr(scenes, "GRADIENT", 0.0)
    torch.manual_seed(0)
    shown = magenta(made._pictures(100, 64))
    none = (1 - scenes.SLOTS[0]) * (1 - scenes.SLOTS[1]) * (1 - scenes.SLOTS[2])
    assert (shown == 0).float().mean().item() == pytest.approx(none, abs=0.12)
    monkeypatch.setattr(scenes, "SLOTS", (1.0,))
    shown = magenta(made._pictures(100, 64))
    assert (shown > 0).all()
    assert shown.mean() < 0.5


def magenta(pictures: torch.Tensor) -> torch.Tensor:
    """The share of each picture that is rather magenta than green."""
    red, green, blue = pictures.unbind(1)
    return (torch.minimum(red, blue) > green + 0.05).float().mean(dim=(1, 2))


def test_what_lies_beside_a_thing_shows_the_ground_and_no_dark_rim(ingredients: Path) -> None:
    from scenes import load_scenes, sampled

    things = load_scenes(ingredients, torch.device("cpu")).things
    whole = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    seen = sampled(things[:1], whole, 192, outside="zeros")
    colours, alpha = seen[:, :3], seen[:, 3:]
    assert alpha[..., 0, :].max() == 0
    assert alpha[..., 96, 96].item() == 1
    over_white = colours + 1 - alpha  # a rim would be darker than both the thing and the ground
    assert over_white[:, 0].min() > 0.97
    assert over_white[:, 2].min() > 0.97


def test_ingredients_that_are_missing_are_named(tmp_path: Path) -> None:
    from scenes import load_scenes

    with pytest.raises(SystemExit, match=r"backgrounds has no \.webp files"):
        load_scenes(tmp_path, torch.device("cpu"))


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_with_new_pictures_and_gives_a_checkpoint_that_build_takes(
    ingredients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import efficientvit_image as recipe
    from make import read
    from scenes import Scenes

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (200, 150), (90, 60, 30)).save(photos / "one.jpg")
    shipped = recipe.Training.model_validate(read(RECIPES / "efficientvit_m0_cpu.toml").training)
    name = shipped.student
    seen: list[torch.Tensor] = []
    batch, save = Scenes.batch, recipe.Learner.save
    monkeypatch.setattr(Scenes, "batch", lambda *given: seen.append(batch(*given)) or seen[-1])

    def run(*steps: int, batch_size: int = 2) -> None:
        parts = tuple(recipe.Part(steps=count, seed=number) for number, count in enumerate(steps))
        changed = shipped.model_copy(update={"batch_size": batch_size, "parts": parts})
        recipe.train(changed, tmp_path / "run", ingredients, photos, torch.device("cpu"))

    def stops(learner: recipe.Learner) -> None:
        save(learner)
        raise Stopped

    monkeypatch.setattr(recipe.Learner, "save", stops)
    with pytest.raises(Stopped):
        run(2)
    monkeypatch.setattr(recipe.Learner, "save", save)
    with pytest.raises(SystemExit, match=r"holds a run with .*'batch_size': 2"):
        run(2, batch_size=4)
    run(2)
    assert len(seen) == 2
    assert not torch.equal(*seen)
    assert seen[0].shape[-1] == 160
    folder = tmp_path / "run" / "1"
    with (folder / "steps.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]

    def starts(learner: recipe.Learner, pictures: torch.Tensor, _: object) -> None:
        saved = torch.load(folder / "state.pt")["student"]
        assert all(torch.equal(tensor, saved[key]) for key, tensor in learner.student.state_dict().items())
        assert learner.taken == 0
        assert pictures.shape[-1] == shipped.size
        raise Stopped

    monkeypatch.setattr(recipe.Learner, "step", starts)
    with pytest.raises(Stopped):
        run(2, 1)

    model = build(name, pretrained=str(folder / "model.safetensors"))
    ids = torch.from_numpy(model.contract.prepare_text(["a red car."]))
    embedded = build(name, pretrained=True).encode_text(ids)
    assert torch.allclose(model.encode_text(ids), embedded, atol=1e-5)
    assert load_file(folder / "model.safetensors")["logit_scale"] == 0
    assert len((folder / "data.txt").read_text().splitlines()) == 3  # things of three kinds are one file here


def test_a_finished_run_gives_its_model_again_from_its_state(tmp_path: Path) -> None:
    import efficientvit_image as recipe
    from make import read

    shipped = recipe.Training.model_validate(read(RECIPES / "efficientvit_m0_cpu.toml").training)

    def learner(steps: int) -> recipe.Learner:
        student = torch.nn.Module()
        student.tower = torch.nn.Linear(2, 2)
        part = recipe.Part(steps=steps, seed=0)
        return recipe.Learner(student, torch.nn.Linear(2, 2), shipped, part, torch.device("cpu"), tmp_path)

    first = learner(4)
    first.taken = 4
    first.save()
    (tmp_path / "data.txt").write_text("image 0\n")
    model = tmp_path / "model.safetensors"
    saved = load_file(model)
    model.unlink()
    learner(4).begin(["image 0"], None)
    weight = "image.weight"
    assert load_file(model)[weight].equal(saved[weight])


def test_photos_that_are_missing_are_named(tmp_path: Path) -> None:
    from efficientvit_image import opened

    with pytest.raises(SystemExit, match=r"has no \.jpg files"):
        opened(tmp_path, 224, torch.device("cpu"))
