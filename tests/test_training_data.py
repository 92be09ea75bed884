"""What a run learns from: sources, the guard, pixels and ids as on the device, changes true to the texts."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_model
from training_tiny import COLOURS, NAME, drawings

from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.entry import TextSpec
from lpcvc_zoo.errors import ContractError, DatasetError, TrainingError
from lpcvc_zoo.retrieval import datasets, photos
from lpcvc_zoo.training import guard
from lpcvc_zoo.training.augment import Augmenter, crop_box, resized
from lpcvc_zoo.training.batches import Order, Samples
from lpcvc_zoo.training.pixels import CachedPixelAdapter, cached_pixels
from lpcvc_zoo.training.recipe import Augment, Data, checked, read_recipe
from lpcvc_zoo.training.sources import TrainingData, load_image, read_training
from lpcvc_zoo.training.texts import text_pool, tower_ids
from lpcvc_zoo.training.words import false_texts, mirrored, names_direction, names_place

CPU = torch.device("cpu")
UNCHANGED = Augment(crop=1, flip="never", brightness=0, contrast=0, saturation=0)


pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data") / "boxes", 12)


def data_of(**sources: object) -> Data:
    return Data.model_validate(sources)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model = 3", "model: Input should be a valid string"),
        ('model = "tiny"\ndata = {pairs = "x"}\nepoch = 3', "epoch: Extra inputs are not permitted"),
        ('model = "tiny"\n[data]\n', "name what to train on"),
        ('model = "tini"\ndata = {pairs = "x"}', "Did you mean 'tiny'"),
        ('model = "tiny"\ncontract = "lpcvc"\ndata = {pairs = "x"}', "Did you mean 'lpcvc2026'"),
        ('model = "tiny"\ndata = {pairs = "x"}\nlosses = [{kind = "affinity"}]', "needs teacher="),
        (
            'model = "tiny"\ndata = {pairs = "x"}\nlosses = [{kind = "affinity", teacher = "a"}]\n'
            'teachers = [{name = "b", model = "tiny"}]',
            "Unknown teacher 'a'",
        ),
        ('model = "tiny"\ndata = {texts = "x"}', "clip need data.pairs"),
        ('model = "tiny"\ndata = {pairs = "x"}\nfreeze = ["image", "text"]', "nothing would be learnt"),
        (
            'model = "tiny"\ndata = {pairs = "x", hold_out = 0}\npatience = 2',
            "patience needs a validation set",
        ),
        ('model = "tiny"\ndata = {pairs = "x", negatives = 2}', "go together"),
        *[
            (
                f'model = "tiny"\ndata = {{pairs = "x"}}\naugment = {{{change} = 0.4}}',
                f"augment.{change}: .*0.4 is more than 0.3, up to which colours are known to keep their",
            )
            for change in ("brightness", "contrast", "saturation")
        ],
        (
            'model = "tiny"\ndata = {pairs = "x"}\noptimiser = {betas = [1.0, 0.9]}',
            "optimiser.betas.*less than 1",
        ),
        ("model = ", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path, text, complaint) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(Exception, match=complaint) as raised:
        read_recipe(tmp_path / "recipe.toml")
    assert type(raised.value).__module__ == "lpcvc_zoo.errors"


def test_the_example_recipe_is_one() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "examples" / "distil.toml")
    assert recipe.towers == ("image", "text")
    assert recipe.validates


def test_a_recipe_written_as_json_is_the_same_recipe() -> None:
    recipe = checked({"model": NAME, "data": {"pairs": ["a", {"path": "b", "split": "train"}]}}, "test")
    assert checked(json.loads(recipe.model_dump_json()), "again") == recipe


# Sources


def test_karpathy_trains_on_train_and_restval_and_validates_on_val(folder, tmp_path) -> None:
    splits = ["train", "restval", "val", "test"]
    images = [
        {"filename": f"{place:03}.png", "split": split, "sentences": [{"raw": f"text of {split}"}]}
        for place, split in enumerate(splits)
    ]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images}))
    source = {"path": str(path), "images": str(folder)}
    train, held_out = read_training(data_of(pairs=[source], validation=source))
    assert held_out is not None
    assert train.texts == ("text of train", "text of restval")
    assert held_out.texts == ("text of val",)


def test_shards_hold_the_same_images_and_texts_as_the_folder(folder, tmp_path) -> None:
    plain, _ = read_training(data_of(pairs=str(folder)))
    for shard in range(2):
        with tarfile.open(tmp_path / f"boxes-{shard:03}.tar", "w") as archive:
            for place in range(shard, len(plain.images), 2):
                image, texts = plain.images[place], [plain.texts[text] for text in plain.positives[place]]
                (tmp_path / "texts").write_text(
                    "\n".join(texts) if shard else json.dumps({"captions": texts})
                )
                archive.add(image, f"{place:03}.png")
                archive.add(tmp_path / "texts", f"{place:03}.{'txt' if shard else 'json'}")
    for pattern in ("boxes-{000..001}.tar", "boxes-*.tar", f"../{tmp_path.name[:-1]}*/boxes-*.tar", ""):
        sharded, _ = read_training(data_of(pairs=str(tmp_path / pattern)))
        pixels = {image.name: np.asarray(load_image(image)) for image in sharded.images}
        assert len(pixels) == len(plain.images)
        for image in plain.images:
            np.testing.assert_array_equal(pixels[image.name], np.asarray(load_image(image)))
        assert sorted(sharded.texts) == sorted(plain.texts)
    with pytest.raises(DatasetError, match=r"no shard .*boxes-002.tar"):
        read_training(data_of(pairs=str(tmp_path / "boxes-{000..002}.tar")))


def test_a_shard_is_indexed_once_until_it_changes(folder, tmp_path, monkeypatch) -> None:
    def shard(text: str) -> None:
        (tmp_path / "text").write_text(text)
        with tarfile.open(tmp_path / "one.tar", "w") as archive:
            archive.add(folder / "000.png", "a.png")
            archive.add(tmp_path / "text", "a.txt")

    ask = lambda: read_training(data_of(pairs=str(tmp_path / "one.tar")))[0].texts  # noqa: E731
    shard("one text")
    assert ask() == ("one text",)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_: pytest.fail("it was indexed again"))
        assert ask() == ("one text",)
    shard("another text")
    assert ask() == ("another text",)


def test_samples_of_a_shard_that_lack_an_image_or_a_text_are_told_with_what_they_have(
    folder, tmp_path
) -> None:
    def shard(name: str, **files: str) -> str:
        with tarfile.open(tmp_path / name, "w") as archive:
            for place, (stem, text) in enumerate(files.items()):
                (tmp_path / "text").write_text(text)
                archive.add(tmp_path / "text", f"{stem}.json" if "{" in text else f"{stem}.txt")
                if "alone" not in stem:
                    archive.add(folder / f"{place:03}.png", f"{stem}.png")
        return str(tmp_path / name)

    source = shard("a.tar", good="a text", alone="a text", untold='{"url": "x", "title": "y"}', silent=" ")
    for _ in range(2):  # read, then from the cache
        data, _ = read_training(data_of(pairs=source))
        assert [image.name for image in data.images] == ["good.png"]
        imageless, textless = map(str, data.problems)
        assert imageless.startswith("a.tar: 1 of 4 samples have no image (")
        assert imageless.endswith("such as that of alone.txt, which has .txt")
        assert textless.startswith("a.tar: 2 of 4 samples have no text (.txt, or .json with caption, ")
        assert textless.endswith(
            "such as that of untold.json, which has .json, .png (.json with the keys url, title)"
        )
    null = shard("null.tar", good="a text", null='{"caption": null}', cut='{"caption": ')
    data, _ = read_training(data_of(pairs=null))
    assert [image.name for image in data.images] == ["good.png"]
    assert str(data.problems[0]).startswith("null.tar: 2 of 3 samples have no text (")
    bare = shard("b.tar", untold='{"url": "x"}')
    with pytest.raises(DatasetError, match=r"no image that has a text was found\. 1 problem: b\.tar: 1 of 1"):
        read_training(data_of(pairs=bare))


def test_the_challenges_two_lists_and_a_registered_dataset_are_sources(folder, tmp_path, monkeypatch) -> None:
    for name in ("000.png", "001.png"):
        shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "txt_list.csv").write_text("1,a red box\n2,a green box\n3,any box\n")
    (tmp_path / "img_list.csv").write_text("001.png,2;3\n000.png,1;3\n")
    monkeypatch.setitem(datasets.BUILT_IN, "mine", lambda strict: datasets.load_dataset(tmp_path))
    for source in (str(tmp_path), "mine"):
        read, _ = read_training(data_of(pairs=source))
        told = {
            image.name: {read.texts[text] for text in own}
            for image, own in zip(read.images, read.positives, strict=True)
        }
        assert told == {"000.png": {"a red box", "any box"}, "001.png": {"a green box", "any box"}}


def test_texts_and_images_alone_are_sources_for_a_single_tower(folder, tmp_path) -> None:
    (tmp_path / "texts.txt").write_text("one text\n\nanother text\nOne  text\n")
    texts, _ = read_training(data_of(texts=str(tmp_path / "texts.txt")))
    assert texts.texts == ("one text", "another text")
    images, _ = read_training(data_of(images=str(folder)))
    assert len(images.images) == 12
    assert set(images.positives) == {()}


def test_an_archive_beside_a_captions_file_is_no_shard_and_links_are_followed(folder, tmp_path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "more").symlink_to(folder)
    (linked / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (linked / "folder.png").mkdir()
    images, _ = read_training(data_of(images=str(linked)))
    assert [image.name for image in images.images] == sorted(path.name for path in folder.glob("*.png"))
    boxes = drawings(tmp_path / "boxes", 4)
    (boxes / "raw.tar").write_bytes(b"")
    assert len(read_training(data_of(pairs=str(boxes)))[0].images) == 4


def test_captions_that_no_tokenizer_takes_are_left_out_and_said(folder, tmp_path) -> None:
    captions = ["half \ud83d", "a cat <|endoftext|> asleep", " ", "a cat asleep"]
    rows = [{"image": "000.png", "caption": text} for text in captions]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"path": str(tmp_path / "captions.jsonl"), "images": str(folder)}
    data, _ = read_training(data_of(pairs=[source]))
    assert data.texts == ("a cat asleep",)
    assert list(map(str, data.problems))[:3] == [
        "captions.jsonl, row 1: '000.png' has a caption with half a character (a lone surrogate); skipped",
        "captions.jsonl, row 2: '000.png' has a caption with <|endoftext|>, which would end or begin it; "
        "skipped",
        "captions.jsonl, row 3: '000.png' has a blank caption; skipped",
    ]


# The guard


def test_the_benchmark_itself_is_refused_to_train_and_to_choose() -> None:
    dataset = photos.load()
    data = TrainingData(dataset.images, dataset.texts, dataset.positives)
    for use in ("trained on", "validated on"):
        with pytest.raises(TrainingError, match=f"bundled benchmark, which must never be {use}"):
            guard.guarded(data, use)


@pytest.mark.parametrize("change", ["renamed", "saved again", "captions alone"])
def test_a_copy_of_the_benchmark_is_refused_whatever_it_is_called(tmp_path, change) -> None:
    copied = drawings(tmp_path / "mine", 4)
    photo = PHOTOS / "images" / "panda.jpg"
    texts = ["my own caption."]
    if change == "renamed":
        shutil.copy(photo, copied / "000.png")
    elif change == "saved again":
        Image.open(photo).save(copied / "000.png", format="JPEG", quality=60)
    else:
        texts = [text.upper().rstrip(".") for text in photos.load().texts[:30]]
    data = TrainingData((copied / "000.png",), tuple(texts), (tuple(range(len(texts))),))
    with pytest.raises(TrainingError, match="bundled benchmark"):
        guard.guarded(data, "trained on")


def test_images_that_did_not_change_are_not_read_again_and_changed_ones_are(tmp_path, monkeypatch) -> None:
    copied = drawings(tmp_path / "mine", 4)
    data, _ = read_training(data_of(pairs=str(copied)))
    _, hashes = guard.guarded(data, "trained on")
    with monkeypatch.context() as patch:
        patch.setattr(guard, "_of_usable", lambda image: pytest.fail(f"{image} was read again"))
        assert guard.guarded(data, "validated on")[1] == hashes
    shutil.copy(PHOTOS / "images" / "panda.jpg", copied / "002.png")
    with pytest.raises(TrainingError, match=r"002\.png is a photo of the bundled benchmark"):
        guard.guarded(data, "trained on")


def test_equal_paths_of_two_working_folders_are_two_images(tmp_path, monkeypatch) -> None:
    """As reproducible archives give them: of one size and one time of change."""
    made = []
    for place, colour in enumerate(("red", "blue")):
        path = tmp_path / str(place) / "data" / "a.bmp"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(path)
        os.utime(path, (1, 1))
        monkeypatch.chdir(tmp_path / str(place))
        images = [Path("data/a.bmp")]
        hashes = guard.guarded(TrainingData(images, ("a text.",), ((0,),)), "trained on")[1]
        made.append((hashes, cached_pixels(images, tiny_model(), device=CPU)[0][0].mean()))
    assert made[0][0] != made[1][0]
    assert made[0][1] > 200 > made[1][1]


def test_a_picture_too_thin_for_the_contract_is_left_out_and_named(folder, tmp_path) -> None:
    Image.new("RGB", (1500, 1)).save(tmp_path / "thin.png")
    data = TrainingData((folder / "000.png", tmp_path / "thin.png"), ("one.", "two."), ((0,), (1,)))
    said: list[str] = []
    kept, _ = guard.guarded(data, "trained on", say=said.append)
    assert [image.name for image in kept.images] == ["000.png"]
    assert said[0].endswith("thin.png: is more than 1024 times as long as it is wide")


def test_a_few_captions_met_by_chance_are_left_out(folder) -> None:
    plain, _ = read_training(data_of(pairs=str(folder)))
    known = photos.load().texts[:2]
    with_known = TrainingData(
        plain.images, (*plain.texts, *known), (*plain.positives[:-1], (len(plain.texts),))
    )
    said: list[str] = []
    kept, hashes = guard.guarded(with_known, "trained on", say=said.append)
    assert not {*known} & {*kept.texts}
    assert len(kept.images) == len(hashes) == len(plain.images) - 1  # the last one had no other text
    assert said == [
        "Texts left out, since captions of the bundled benchmark must never be trained on: 2, "
        "and 1 images that have no other text"
    ]
    assert len(guard.manifest(kept, hashes).splitlines()) == len(kept.images) + len(kept.texts)


# Pixels and ids as on the device


@pytest.mark.parametrize("contract", ["lpcvc2026", "lpcvc2026_sample"])
def test_cached_pixels_are_those_of_the_graph_to_half_a_grey_level(folder, contract) -> None:
    model = tiny_model(contract)
    images = sorted(folder.glob("*.png"))[:3]
    parts = cached_pixels(images, model, device=CPU)
    adapter = CachedPixelAdapter(model.image_encoder.adapter, model.contract.image.high)
    cached = adapter(torch.from_numpy(parts.rows(range(3))))
    host = torch.from_numpy(np.concatenate([model.contract.prepare_image(path) for path in images]))
    half = 0.5 / 255 / torch.tensor(model.preprocessing.std).view(1, 3, 1, 1)
    assert ((cached - model.image_encoder.adapter(host)).abs() <= half * 1.001).all()


def test_cached_pixels_are_exact_to_the_bit_where_the_graph_resizes_nothing(folder) -> None:
    model = tiny_model("lpcvc2026_sample")
    entry = model.entry.model_copy(update={"image_size": 224})
    model = type(model)(
        _towers(model), entry, model.contract, entry.preprocessing, text_length=None
    )  # the contract's own size
    path = folder / "003.png"
    parts = cached_pixels([path], model, device=CPU)
    cached = CachedPixelAdapter(model.image_encoder.adapter, 1.0)(torch.from_numpy(parts.rows([0])))
    host = torch.from_numpy(model.contract.prepare_image(path))
    assert cached.equal(model.image_encoder.adapter(host))


def _towers(model):
    from lpcvc_zoo.model import Towers

    return Towers(model.image_tower, model.text_tower)


def test_an_image_whose_text_forbids_a_crop_keeps_the_contracts_own_pixels(folder, tmp_path) -> None:
    """With crops for the others: what is cached is not kept larger for their sake."""
    for name in ("000.png", "001.png"):
        shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "captions.csv").write_text("image,caption\n000.png,a box at the top.\n001.png,a box.\n")
    model = tiny_model("lpcvc2026_sample")
    samples = made_samples(tmp_path, model, UNCHANGED.model_copy(update={"crop": 0.5}))
    exact = torch.from_numpy(cached_pixels(samples.data.images, model, device=CPU).rows([0, 1]))
    drawn = [samples.__getitems__([(epoch, item) for item in range(2)]).pixels for epoch in range(4)]
    assert all(pixels[0].equal(exact[0]) for pixels in drawn)
    assert not any(pixels[1].equal(exact[1]) for pixels in drawn)


@pytest.mark.parametrize("cached", [False, True], ids=["whole road", "cached"])
def test_a_batch_without_changes_is_what_the_device_gets(folder, cached) -> None:
    model = tiny_model("lpcvc2026_sample", text=TextSpec(pad_id=0, causal=False))
    samples = made_samples(folder, model, UNCHANGED, cached=cached)
    batch = samples.__getitems__([(0, 4), (7, 2)])
    data = samples.data
    assert batch.image_index.tolist() == [4, 2]
    host = np.concatenate([model.contract.prepare_image(data.images[place]) for place in (4, 2)])
    if cached:
        expected = cached_pixels(data.images, model, device=CPU).rows([4, 2])
        assert batch.pixels.equal(torch.from_numpy(expected))
    else:
        assert batch.pixels.equal(torch.from_numpy(host))
    texts = [data.texts[place] for place in batch.text_index[:, 0]]
    assert all(
        place in data.positives[image]
        for image, place in ((4, batch.text_index[0, 0]), (2, batch.text_index[1, 0]))
    )
    ids = model.text_encoder.adapter(torch.from_numpy(model.contract.prepare_text(texts)))
    assert batch.ids[:, 0].equal(ids.to(torch.int32))


def test_ids_of_a_causal_tower_are_cut_where_the_longest_text_ends() -> None:
    model = tiny_model("lpcvc2026", text=TextSpec(pad_id=0, causal=True))
    ids = tower_ids(("a cat.", "a much longer text about a cat."), model)
    short, both = ids.of(np.array([0])), ids.of(np.array([[0], [1]]))
    assert short.tolist() == [[49406, 320, 2368, 269, 49407]]
    assert both.shape == (2, 1, 10)
    assert both[0, 0].tolist() == [49406, 320, 2368, 269, 49407, 0, 0, 0, 0, 0]
    assert tower_ids(("a cat.",), tiny_model("lpcvc2026")).of(np.array([0])).shape == (1, 77)


def test_a_broken_image_is_named(folder, tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes((folder / "000.png").read_bytes()[:200])
    with pytest.raises(ContractError, match=r"broken\.png"):
        cached_pixels([tmp_path / "broken.png"], tiny_model(), device=CPU)


# Order and drawing


def made_samples(folder: Path, model, augment: Augment, *, cached=True, siblings=1, negatives=0) -> Samples:
    data, _ = read_training(data_of(pairs=str(folder)))
    pool = text_pool(data.texts, mirror=augment.flip == "swap_words", negatives=negatives)
    size = model.entry.image_size
    pixels = cached_pixels(data.images, model, device=CPU) if cached else None
    return Samples(
        data, np.arange(len(data.images)), Augmenter(augment), model.contract, 0, size,
        model.preprocessing.interpolation, siblings, pool, pixels, tower_ids(pool.texts, model), True,
    )  # fmt: skip


def test_every_epoch_meets_every_item_once_and_processes_share_it() -> None:
    alone = [*Order(10, 4, 6, 0, seed=1)]
    assert len(alone) == 6
    for epoch in range(3):
        keys = [key for step in alone[2 * epoch : 2 * epoch + 2] for key in step]
        assert {key[0] for key in keys} == {epoch}
        assert len({item for _, item in keys}) == 8
    shares = [[*Order(10, 4, 6, 0, 1, rank, 2)] for rank in range(2)]
    assert [one + other for one, other in zip(*shares, strict=True)] == alone
    assert [*Order(10, 4, 6, 3, seed=1)] == alone[3:]


def test_texts_of_like_length_share_a_batch_and_none_is_left_out() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 1000)
    batches = [[item for _, item in keys] for keys in Order(1000, 10, 200, 0, seed=1, lengths=lengths)]
    for epoch in (batches[:100], batches[100:]):
        assert sorted(item for batch in epoch for item in batch) == [*range(1000)]
        spread = [np.ptp(lengths[batch]) for batch in epoch]
        assert np.mean(spread) < 1
        middle = [float(np.median(lengths[batch])) for batch in epoch]
        assert middle != sorted(middle), "short ones don't come first"
    assert batches[:100] != batches[100:]


def test_siblings_are_different_texts_of_their_image_and_false_texts_are_none_of_its_own(folder) -> None:
    samples = made_samples(folder, tiny_model("lpcvc2026_sample"), Augment(), siblings=2, negatives=3)
    batch = samples.__getitems__([(0, place) for place in range(6)])
    for place in range(6):
        own = samples.data.positives[place]
        assert sorted(batch.text_index[place].tolist()) == sorted(own)
        false = [index for index in batch.negative_index[place].tolist() if index >= 0]
        assert false
        assert not {*false} & {*own}


def test_a_flipped_image_gets_texts_with_left_and_right_exchanged(folder) -> None:
    always = UNCHANGED.model_copy(update={"flip": "swap_words"})
    samples = made_samples(folder, tiny_model("lpcvc2026_sample"), always, siblings=2)
    plain = made_samples(folder, tiny_model("lpcvc2026_sample"), UNCHANGED, siblings=2)
    seen = set()
    for epoch in range(8):
        key = (epoch, 5)
        batch, before = samples.__getitems__([key]), plain.__getitems__([key])
        flipped = not batch.pixels.equal(before.pixels)
        seen.add(flipped)
        texts = {samples.pool.texts[place] for place in batch.text_index[0]}
        own = {plain.pool.texts[place] for place in plain.data.positives[5]}
        assert texts == ({mirrored(text) for text in own} if flipped else own)
        if flipped:
            assert batch.pixels.equal(before.pixels.flip(-1))
    assert seen == {True, False}


def test_a_flipped_image_keeps_the_false_texts_that_name_no_direction(folder) -> None:
    always = UNCHANGED.model_copy(update={"flip": "swap_words"})
    samples = made_samples(folder, tiny_model("lpcvc2026_sample"), always, negatives=3)
    plain = made_samples(folder, tiny_model("lpcvc2026_sample"), UNCHANGED, negatives=3)
    seen = set()
    for key in [(epoch, item) for epoch in range(6) for item in range(4)]:
        batch, before = samples.__getitems__([key]), plain.__getitems__([key])
        flipped = not batch.pixels.equal(before.pixels)
        directional = bool(plain.pool.directional[before.text_index[0, 0]])
        false = [samples.pool.texts[place] for place in batch.negative_index[0] if place >= 0]
        assert bool(false) == (not (flipped and directional))
        if flipped:
            assert not any(map(names_direction, false))
        seen.add((flipped, directional))
    assert len(seen) == 4


def test_an_image_whose_text_names_a_direction_is_neither_flipped_nor_cropped() -> None:
    augmenter = Augmenter(Augment(crop=0.5))
    draws = [augmenter.flips(True, np.random.default_rng(seed)) for seed in range(40)]
    assert not any(draws)
    assert any(augmenter.flips(False, np.random.default_rng(seed)) for seed in range(40))
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    assert augmenter(image, flip=False, whole=True, random=np.random.default_rng(0)).shape == (3, 40, 40)
    assert augmenter(image, flip=False, whole=False, random=np.random.default_rng(0)).shape != (3, 40, 40)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_keep_their_names_under_every_change(name) -> None:
    """Of all the colours that have names here, the changed one stays nearest to its own."""
    strongest = Augment(brightness=0.3, contrast=0.3, saturation=0.3, rotate=20, blur=1, noise=1)
    ground = torch.full((3, 48, 48), 128, dtype=torch.uint8)
    ground[:, 12:36, 12:36] = torch.tensor(COLOURS[name], dtype=torch.uint8).view(3, 1, 1)
    for seed in range(20):
        changed = Augmenter(strongest)(ground, flip=True, whole=True, random=np.random.default_rng(seed))
        colour = changed[:, 20:28, 20:28].float().mean(dim=(1, 2))
        distances = {other: float((colour - torch.tensor(COLOURS[other])).norm()) for other in COLOURS}
        assert min(distances, key=distances.__getitem__) == name


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_keeps_its_share_and_lies_inside(seed) -> None:
    for least in (0.3, 0.7, 0.95):
        top, left, height, width = crop_box(100, 140, least, np.random.default_rng(seed))
        assert 0 <= top <= 100 - height
        assert 0 <= left <= 140 - width
        assert height * width >= (least - 0.02) * 100 * 140
    assert resized(torch.zeros(3, 7, 9, dtype=torch.uint8), 8, "bicubic").shape == (3, 8, 8)


# Words


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("The dog on the left.", "The dog on the right."),
        ("LEFT of a right-hand drive car", "RIGHT of a left-hand drive car"),
        ("the leftmost cup, counterclockwise", "the rightmost cup, clockwise"),
        ("bright lights, a copyright sign", None),
    ],
)
def test_left_and_right_are_exchanged_as_whole_words(text, other) -> None:
    assert names_direction(text) == (other is not None)
    assert mirrored(text) == (other or text)


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("A kite at the top.", True),
        ("a clock in the Corner of a room", True),
        ("the dog in the middle", True),
        ("a cat BEHIND the curtain", True),
        ("a lamp next to a bed", True),
        ("a man in front of a bus", True),
        ("a house on the right", True),
        ("a topless car, an infant's stop sign", False),
        ("two dogs asleep on a bed", False),
    ],
)
def test_words_that_say_where_forbid_a_crop(text, placed) -> None:
    assert names_place(text) == placed
    pool = text_pool(("a box", text), mirror=True, negatives=0)
    assert pool.placed.tolist() == [False, placed]


def test_mirrored_texts_stand_before_false_ones_and_only_these_are_beyond_the_true() -> None:
    texts = ("a red cup on the left", "a blue cup")
    pool = text_pool(texts, mirror=True, negatives=2)
    assert pool.texts[: pool.true] == (*texts, "a red cup on the right")
    assert pool.mirror.tolist() == [2, 1]
    false = {pool.texts[place] for place in pool.negatives.flatten() if place >= 0}
    assert {"a red cup on the right"} < false
    assert {*pool.texts[pool.true :]} < false
    assert not {*pool.texts[pool.true :]} & {*pool.texts[: pool.true]}


def test_false_texts_exchange_directions_and_colours_and_read_well() -> None:
    assert false_texts("A red car with a white roof on the left.", 2) == [
        "A red car with a white roof on the right.",
        "A white car with a red roof on the left.",
    ]
    made = false_texts("a blue cup.", 20)
    assert len({*made}) == len(made) == 14
    assert "an orange cup." in made
    assert false_texts("an orange cup.", 1)[0].startswith("a ")
    assert false_texts("a cat asleep.", 3) == []


@pytest.mark.parametrize(
    ("true", "paraphrase"),
    [
        ("a black and white photo", "a white and black photo"),
        ("a red, white and blue flag", "a red, blue and white flag"),
        ("a red and a blue car", "a blue and a red car"),
        ("a blue-green vase", "a green-blue vase"),
        ("cars on the left and right", "cars on the right and left"),
        ("a gray sky", "a grey sky"),
        ("a gold crown", "a golden crown"),
    ],
)
def test_no_false_text_is_a_paraphrase(true: str, paraphrase: str) -> None:
    assert paraphrase not in false_texts(true, 30)
