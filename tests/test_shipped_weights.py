"""The weights that come with the package: small, described, and never trained on the benchmark."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from torch import nn

from lpcvc_zoo import build, get_entry, list_models, load_dataset
from lpcvc_zoo.backbones._colours import NAMES
from lpcvc_zoo.backbones._conse import ConSETower
from lpcvc_zoo.bench.plan import UNTRAINED, select
from lpcvc_zoo.bench.steps import weights
from lpcvc_zoo.data import PHOTOS, SHIPPED
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.retrieval.metrics import Scores, score
from lpcvc_zoo.training.guard import benchmark_captions, benchmark_images, caption_hash
from lpcvc_zoo.weights.identity import identity_of
from lpcvc_zoo.weights.load import load

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "benchmarks" / "recipes"
TRAINED_ON = RECIPES / "trained_on"
MODELS = [name for name in list_models(pretrained=True) if get_entry(name).pretrained[0].shipped]
CHEAPEST = "efficientnet_lite0_128_text_xxs"
SCORED = (
    "efficientnet_lite0_96_text_xxs",
    CHEAPEST,
    "efficientnet_lite0_160_text_xs",
    "efficientvit_m0_text_xs",
    "efficientvit_b0_text_xs",
)
FILES = sorted(SHIPPED.glob("*.safetensors"))


def test_every_file_is_used_small_and_described() -> None:
    used = {file for name in MODELS for file in get_entry(name).pretrained[0].shipped or ()}
    assert {path.name for path in FILES} == used
    assert all(path.stat().st_size <= 12e6 for path in FILES)
    assert sum(path.stat().st_size for path in FILES) <= 45e6
    for path in FILES:
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        for heading in ("## Data", "## How it was made", "## Results", "## Limits"):
            assert heading in card, f"{path.stem}.md lacks {heading}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_matrices_are_half_precision_and_nothing_is_lost_in_it(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            tensor = file.get_tensor(name)
            if tensor.ndim > 1:
                assert tensor.dtype == torch.float16, name
                assert tensor.isfinite().all(), name


def trained_on(name: str) -> list[str]:
    return gzip.decompress((TRAINED_ON / name).read_bytes()).decode().splitlines()


def test_no_caption_of_the_benchmark_was_trained_on() -> None:
    lines = trained_on("texts.txt.gz")
    assert len(lines) > 1000
    hashes = {line.removeprefix("text ") for line in lines}
    (digits,) = set(map(len, hashes))
    assert not hashes & {sha[:digits] for sha in benchmark_captions()}


def test_all_captions_that_were_written_were_trained_on_but_those_of_the_benchmark(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from captions import CLASSES, NOUNS, captions, of

    for path in (CLASSES, NOUNS):
        assert {len(line) for line in of(path)} == {10}, path.name
    assert all(caption == caption.strip() and caption.endswith(".") for caption in captions())
    written = {caption_hash(caption) for caption in captions()}
    assert len(written) > 50_000
    recorded = {line.removeprefix("text ") for line in trained_on("texts.txt.gz")}
    (digits,) = set(map(len, recorded))
    left_out = {sha for sha in written if sha[:digits] not in recorded}
    assert left_out <= benchmark_captions()


def test_no_file_of_the_benchmark_was_trained_on() -> None:
    """By sha256 of the package's file that each was made of (the benchmark's JPEGs are saved anew), and by
    that file's path."""
    rows = list(csv.DictReader(trained_on("pictures.csv.gz")))
    assert len(rows) > 1000
    hashes = {row["sha256"] for row in rows}
    (digits,) = set(map(len, hashes))
    originals = {row["original_sha256"][:digits] for row in credits()}
    assert not hashes & (originals | {digest[:digits] for digest in benchmark_images()})
    packaged = [row["made_of"].partition(": ")[2] for row in rows]  # "rcc/<name>/gcompris/..." in gcompris
    seen = {path.partition("/gcompris/")[2] for path in packaged} - {""}
    secret = secret_paths()
    assert len(secret) == len(load_dataset("photos").images)
    assert {Path(path).parent for path in seen} & {Path(path).parent for path in secret}  # written alike
    assert not seen & secret


def secret_paths() -> set[str]:
    """Of the benchmark's photos in the package that they are from, below "gcompris/"."""
    return {row["original_path"].rpartition(":/gcompris/")[2] for row in credits()}


def credits() -> list[dict[str, str]]:
    with (PHOTOS / "CREDITS.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_chose_or_made_the_heads_is_not_of_the_benchmark(monkeypatch) -> None:
    """Captions of the classes and of the photos that the heads were chosen by, and those photos' paths."""
    monkeypatch.syspath_prepend(str(RECIPES))
    from captioned import CAPTIONS
    from captions import CLASSES, of

    classes = of(CLASSES)
    assert [len(captions) for captions in classes] == [10] * 1000
    rows = of(CAPTIONS)
    assert len(rows) > 100
    written = {caption for captions in (*classes, *(row[1:] for row in rows)) for caption in captions}
    assert all(caption == caption.strip() and caption.endswith(".") for caption in written)
    assert not {caption_hash(caption) for caption in written} & benchmark_captions()
    assert not {row[0].partition("/gcompris/")[2] for row in rows} & secret_paths()


def test_the_captions_that_text_towers_are_checked_on_were_not_trained_on(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from captioned import CAPTIONS
    from captions import of

    checked = {caption_hash(caption) for row in of(CAPTIONS) for caption in row[1:]}
    assert len(checked) > 300
    recorded = {line.removeprefix("text ") for line in trained_on("texts.txt.gz")}
    (digits,) = set(map(len, recorded))
    assert not {sha[:digits] for sha in checked} & recorded


def test_no_background_looks_like_a_photo_of_the_benchmark(monkeypatch, tmp_path) -> None:
    """At any size and mirrored; and a photo that is there would be found, though it was saved anew."""
    monkeypatch.syspath_prepend(str(RECIPES))
    from collect_pictures import SAME, thumbnail
    from record import TILE, sheet

    def rows(image: Image.Image) -> np.ndarray:
        boxes = [
            (left, top, left + TILE, top + TILE)
            for top in range(0, image.height, TILE)
            for left in range(0, image.width, TILE)
        ]
        return np.stack([thumbnail(image.crop(box)) for box in boxes])

    backgrounds = rows(Image.open(TRAINED_ON / "backgrounds.png"))
    listed = [line for line in trained_on("pictures.csv.gz") if "/backgrounds/" in line]
    assert len(backgrounds) > len(listed) > 10
    photos = [Image.open(path).convert("RGB") for path in sorted((PHOTOS / "images").iterdir())]
    known = np.stack([thumbnail(form) for photo in photos for form in (photo, ImageOps.mirror(photo))])
    assert (known @ backgrounds.T).max() < SAME
    ImageOps.mirror(photos[7]).resize((400, 300)).save(tmp_path / "again.webp", quality=80)
    assert (known @ rows(sheet([tmp_path / "again.webp"])).T).max() > SAME
    for name in ("collect_pictures", "emoji", "qt_resources", "record"):
        sys.modules.pop(name, None)


def test_conse_is_the_mean_of_class_embeddings_under_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4], [0.0, 1e4, 0.0]])
    tower = ConSETower(nn.Identity(), classes=3, embed_dim=2)
    tower.colours = nn.Linear(3, 2)
    with torch.no_grad():
        tower.class_embeddings.weight.copy_(torch.tensor([[1.0, 3.0, 99.0], [0.0, 2.0, 99.0]]))
        tower.colours.weight.zero_()
        tower.colours.bias.copy_(torch.tensor([0.5, 0.0]))
        expected = nn.functional.normalize(torch.tensor([[2.0, 1.0], [3.0, 2.0]])) + torch.tensor([0.5, 0.0])
        torch.testing.assert_close(tower(logits), expected)


@pytest.mark.parametrize("name", ["efficientnet_lite0_96_text_xxs", "efficientvit_b0_text_xs"])
@pytest.mark.parametrize("colour", ["red", "green", "white"])
def test_the_middle_of_a_picture_is_named_by_its_colour(name: str, colour: str) -> None:
    """Each family normalises pixels in a way of its own; the surroundings count less, and not nothing."""
    model = build(name, pretrained=True, contract="lpcvc2026_sample")
    branch = model.image_tower.get_submodule("colours")
    picture = Image.new("RGB", (224, 224), (40, 80, 180))
    picture.paste({"red": (210, 25, 35), "green": (50, 140, 50)}.get(colour, colour), (56, 56, 168, 168))
    pixels = model.image_encoder.adapter(torch.from_numpy(model.contract.prepare_image(picture)))
    shares: list[torch.Tensor] = []
    branch.words.register_forward_pre_hook(lambda _, given: shares.append(given[0][0].square()))
    with torch.inference_mode():
        branch(pixels)
    by_name = dict(zip(NAMES, shares[0].tolist(), strict=True))
    assert by_name[colour] == pytest.approx(0.625, abs=0.1)
    assert by_name["blue"] == pytest.approx(0.375, abs=0.1)


def test_towers_are_shared_between_entries_and_named_in_results() -> None:
    first, second = (load(get_entry(f"efficientnet_lite0_{size}_text_xs"), True) for size in (160, 224))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert first.label == second.label
    assert first.label.startswith("conse_minilm@")


def test_another_file_is_another_checkpoint_and_a_missing_one_says_so(tmp_path, monkeypatch) -> None:
    entry = get_entry(CHEAPEST)
    before = identity_of(entry, True)
    shutil.copytree(SHIPPED, tmp_path / "weights")
    monkeypatch.setattr("lpcvc_zoo.weights.fetch.SHIPPED", tmp_path / "weights")
    assert identity_of(entry, True) == before
    shutil.copy(tmp_path / "weights" / "text_xs.safetensors", tmp_path / "weights" / "text_xxs.safetensors")
    assert identity_of(entry, True) != before
    with pytest.raises(WeightsError, match="does not fit"):
        build(CHEAPEST, pretrained=True)
    (tmp_path / "weights" / "text_xxs.safetensors").unlink()
    with pytest.raises(WeightsError, match="Install it again"):
        build(CHEAPEST, pretrained=True)


def test_a_fresh_machines_default_sweep_has_five_models_far_above_chance_and_cards_say_so() -> None:
    tables = (SHIPPED / "efficientnet_lite0.md", ROOT / "README.md")
    stated = [
        dict(re.findall(r"\| `(\w+)` \| [\d.]+ \(([\d.]+) to [\d.]+\)", path.read_text("utf-8")))
        for path in tables
    ]
    swept = select([get_entry(name) for name in list_models()], weights=lambda entry: weights(entry, None))
    trained = {entry.name for entry, chosen in swept if chosen != UNTRAINED}
    assert set(MODELS) <= trained
    assert stated[0].items() <= stated[1].items()
    assert set(MODELS) == stated[1].keys()
    assert sum(float(low) > 5 * 0.021 for name, low in stated[1].items() if name in trained) >= 5


@pytest.mark.slow
def test_recall_is_what_the_readme_says() -> None:
    """Of five models, from files to scores, on the whole benchmark."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"\| `(\w+)` \| ([\d.]+) \(", readme))
    for name, found in scores(SCORED).items():
        recall = found.recall(10)
        assert recall.value == pytest.approx(float(stated[name]), abs=0.006), name
        assert recall.low > 5 * recall.chance, name


@torch.inference_mode()
def scores(names: tuple[str, ...]) -> dict[str, Scores]:
    """Each photo prepared once for all models, and each text tower's texts embedded once."""
    dataset = load_dataset("photos")
    models = {name: build(name, pretrained=True) for name in names}
    contract = models[names[0]].contract
    images: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for path in dataset.images:
        photo = torch.from_numpy(contract.prepare_image(path))
        for name, model in models.items():
            images[name].append(model.encode_image(photo))
    ids = torch.from_numpy(contract.prepare_text(list(dataset.texts)))
    last = {name.rpartition("_text_")[2]: model for name, model in models.items()}
    texts = {kind: model.encode_text(ids).numpy() for kind, model in last.items()}
    return {
        name: score(torch.cat(images[name]).numpy(), texts[name.rpartition("_text_")[2]], dataset)
        for name in names
    }
