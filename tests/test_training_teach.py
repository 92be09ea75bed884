"""The objective and its teachers, and soups."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from training_tiny import NAME, drawings

from lpcvc_zoo import build
from lpcvc_zoo.cli import main
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.errors import TrainingError, WeightsError
from lpcvc_zoo.model import unit_length
from lpcvc_zoo.retrieval.evaluate import evaluate
from lpcvc_zoo.training import losses as terms
from lpcvc_zoo.training import ready, teachers
from lpcvc_zoo.training.augment import Augmenter
from lpcvc_zoo.training.batches import Samples
from lpcvc_zoo.training.losses import Embedded, Objective
from lpcvc_zoo.training.recipe import Augment, Loss, Recipe, checked
from lpcvc_zoo.training.run import train
from lpcvc_zoo.training.soup import soup
from lpcvc_zoo.training.sources import read_training
from lpcvc_zoo.training.teachers import rows_by_path
from lpcvc_zoo.training.texts import text_pool
from lpcvc_zoo.training.words import mirrored

SAMPLE = "lpcvc2026_sample"
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data") / "boxes")


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny entry that differs from its untrained weights."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(recipe(data, epochs=3, data={"pairs": str(data), "hold_out": 0}), out)
    return out / "model.safetensors"


def recipe(data: Path, /, **fields: Any) -> Recipe:
    document = {
        "model": NAME, "contract": SAMPLE, "batch_size": 8, "augment": {"crop": 1, "flip": "never"},
        "data": {"pairs": str(data)}, "optimiser": {"lr": 0.01}, **fields,
    }  # fmt: skip
    return checked(document, "test")


def embedded(seed: int, batch: int = 5, siblings: int = 2, dim: int = 6) -> Embedded:
    random = torch.Generator().manual_seed(seed)
    return Embedded(
        image=unit_length(torch.randn(batch, dim, generator=random)),
        text=unit_length(torch.randn(batch, siblings, dim, generator=random)),
        negatives=unit_length(torch.randn(batch, 2, dim, generator=random)),
        negative_mask=torch.tensor(
            [[True, True], [True, False], [False, False], [True, True], [False, True]]
        ),
    )


def term(kind: str, student: Embedded, teacher: Embedded | None = None, scale: float = 10.0, **fields: Any):
    loss = Loss(kind=kind, teacher=None if teacher is None else "t", **fields)
    dims = {} if teacher is None else {"t": teacher.image.shape[1]}
    objective = Objective([loss], student.image.shape[1], dims)
    said = objective(student, {} if teacher is None else {"t": teacher}, torch.tensor(math.log(scale)))
    return said["loss"]


# Losses


def test_a_student_that_has_the_teachers_embeddings_is_at_each_losss_minimum() -> None:
    teacher, other = embedded(0), embedded(1)
    assert float(term("feature", teacher, teacher)) == 0
    for kind in ("affinity", "relational"):
        at_best, elsewhere = term(kind, teacher, teacher), term(kind, other, teacher)
        assert at_best < elsewhere
        towards = Embedded(
            image=teacher.image.clone().requires_grad_(), text=teacher.text.clone().requires_grad_()
        )
        term(kind, towards, teacher).backward()
        assert towards.text.grad.abs().max() < 1e-4
    aligned = Embedded(image=teacher.image, text=teacher.image.unsqueeze(1).expand(-1, 2, -1))
    assert term("interactive", aligned, aligned) < term("interactive", other, aligned)


def test_affinity_is_the_divergence_from_the_teacher_but_for_a_constant() -> None:
    """The contrastive relational distillation of CLIP-KD: same gradient as TinyCLIP's affinity mimicking."""
    teacher, student = embedded(0, siblings=1), embedded(1, siblings=1)
    gradients = []
    for loss in ("cross-entropy", "divergence"):
        image, text = student.image.clone().requires_grad_(), student.text.clone().requires_grad_()
        if loss == "cross-entropy":
            term("affinity", Embedded(image=image, text=text), teacher, temperature=0.1).backward()
        else:
            own, its = image @ text[:, 0].T / 0.1, teacher.image @ teacher.text[:, 0].T / 0.1
            pairs = [(own, its), (own.T, its.T)]
            sum(
                functional.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean")
                / 2
                for a, b in pairs
            ).backward()
        gradients.append((image.grad, text.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_texts_of_one_image_never_count_against_each_other() -> None:
    student = embedded(0)
    student.text = student.text[:, :1].expand(-1, 2, -1)  # the same text twice
    once = Embedded(image=student.image, text=student.text[:, :1])
    torch.testing.assert_close(term("clip", student), term("clip", once))


def test_false_texts_count_only_against_their_own_image_and_only_where_there_are_some() -> None:
    student = embedded(0)
    expected = []
    for row, mask in enumerate(student.negative_mask):
        if mask.any():
            against = torch.cat([student.text[row, :1], student.negatives[row][mask]])
            expected.append(-(10 * against @ student.image[row]).log_softmax(0)[0])
    torch.testing.assert_close(term("negatives", student), torch.stack(expected).mean())
    student.negative_mask = torch.zeros_like(student.negative_mask)
    assert float(term("negatives", student)) == 0


def test_a_teacher_of_another_size_is_met_by_a_projection_that_learns() -> None:
    loss = Loss(kind="feature", teacher="t", towers=("text",))
    objective = Objective([loss], 6, {"t": 9})
    assert [tuple(item.shape) for item in objective.parameters()] == [(9, 6)]
    objective(embedded(0), {"t": embedded(1, dim=9)}, torch.tensor(0.0))["loss"].backward()
    assert next(objective.parameters()).grad.abs().sum() > 0


def test_the_scale_of_cosines_stays_at_most_a_hundred() -> None:
    scale = torch.tensor(7.0)
    terms.largest_scale(scale)
    assert float(scale.exp()) == pytest.approx(100)


# Teachers


@pytest.mark.parametrize("kind", ["feature", "affinity", "relational", "interactive"])
def test_each_distillation_draws_the_student_to_its_teacher(data, teacher, tmp_path, kind) -> None:
    fields = {
        "losses": [{"kind": kind, "teacher": "t"}],
        "teachers": [{"name": "t", "model": NAME, "pretrained": str(teacher)}],
    }
    train(recipe(data, epochs=6, **fields), tmp_path / "run")
    steps = np.genfromtxt(tmp_path / "run" / "steps.csv", delimiter=",", names=True)
    assert steps[f"{kind}_t"][-2:].mean() < steps[f"{kind}_t"][:2].mean()


def test_several_teachers_and_a_contrast_make_one_loss(data, teacher, tmp_path) -> None:
    fields = {
        "losses": [
            {"kind": "clip", "weight": 0.5}, {"kind": "feature", "teacher": "a", "weight": 2},
            {"kind": "relational", "teacher": "b", "weight": 0.25},
        ],
        "teachers": [{"name": name, "model": NAME, "pretrained": str(teacher)} for name in "ab"],
    }  # fmt: skip
    train(recipe(data, epochs=1, **fields), tmp_path / "run")
    steps = np.genfromtxt(tmp_path / "run" / "steps.csv", delimiter=",", names=True)
    weighted = 0.5 * steps["clip"] + 2 * steps["feature_a"] + 0.25 * steps["relational_b"]
    np.testing.assert_allclose(steps["loss"], weighted, rtol=1e-5)


def test_a_teacher_is_asked_once_and_says_what_the_model_says(data, teacher, monkeypatch) -> None:
    taught = recipe(
        data, losses=[{"kind": "affinity", "teacher": "t"}],
        teachers=[{"name": "t", "model": NAME, "pretrained": str(teacher)}],
    )  # fmt: skip
    read, _ = read_training(taught.data)
    contract = get_contract(SAMPLE)
    ask = lambda: teachers.lessons(taught, contract, read.images, read.texts, device=CPU, workers=0)["t"]  # noqa: E731
    first = ask()
    monkeypatch.setattr(teachers, "build", lambda *_, **__: pytest.fail("it was asked again"))
    again = ask()
    model = build(NAME, pretrained=teacher, contract=SAMPLE)
    with torch.no_grad():
        image = model.encode_image(contract.prepare_image(read.images[3]))
        text = model.encode_text(contract.prepare_text(read.texts[5]))
    for lesson in (first, again):
        said = lesson.of(torch.tensor([3]), torch.tensor([[5]]))
        torch.testing.assert_close(said.image, image)
        torch.testing.assert_close(said.text[0], text)


def test_embeddings_in_a_file_teach_what_the_model_itself_teaches(data, teacher, tmp_path) -> None:
    evaluate(build(NAME, pretrained=teacher, contract=SAMPLE), data, save_embeddings=tmp_path / "said.npz")
    learnt = {}
    for name, source in (
        ("model", {"model": NAME, "pretrained": str(teacher)}),
        ("file", {"embeddings": str(tmp_path / "said.npz")}),
    ):
        fields = {"losses": [{"kind": "feature", "teacher": "t"}], "teachers": [{"name": "t", **source}]}
        train(recipe(data, epochs=2, **fields), tmp_path / name)
        learnt[name] = load_file(tmp_path / name / "last.safetensors")
    for key in learnt["model"]:
        torch.testing.assert_close(learnt["file"][key], learnt["model"][key], rtol=1e-3, atol=1e-5)


def test_an_image_is_taught_by_the_longest_name_that_ends_its_path(tmp_path) -> None:
    known = {name: row for row, name in enumerate(["0.jpg", "sub/0.jpg", "sub/once.jpg"])}
    images = [tmp_path / name for name in ("all/0.jpg", "all/sub/0.jpg", "else/once.jpg", "all/2.jpg")]
    assert rows_by_path(known, images) == [0, 1, 2, None]
    assert rows_by_path({"a/0.jpg": 0, "b/0.jpg": 1}, [tmp_path / "c" / "0.jpg"]) == [None]


def test_two_images_that_one_embedding_fits_are_refused(data, tmp_path) -> None:
    other = drawings(tmp_path / "other", 4, seed=1)
    evaluate(build(NAME, contract=SAMPLE), other, save_embeddings=tmp_path / "said.npz")
    fields = {
        "losses": [{"kind": "feature", "teacher": "t"}],
        "teachers": [{"name": "t", "embeddings": str(tmp_path / "said.npz")}],
        "data": {"pairs": [str(other), str(drawings(tmp_path / "more", 4, seed=2))], "hold_out": 0},
    }
    with pytest.raises(TrainingError, match=r"one embedding whose name both .*other/000\.png and .*more/000"):
        train(recipe(data, batch_size=2, **fields), tmp_path / "run")


def test_embeddings_in_a_file_go_with_false_texts_about_which_no_teacher_is_asked(
    data, teacher, tmp_path
) -> None:
    evaluate(build(NAME, pretrained=teacher, contract=SAMPLE), data, save_embeddings=tmp_path / "said.npz")
    fields = {
        "losses": [{"kind": "affinity", "teacher": "t"}, {"kind": "negatives"}],
        "teachers": [{"name": "t", "embeddings": str(tmp_path / "said.npz")}],
        "data": {"pairs": str(data), "negatives": 2},
    }
    train(recipe(data, epochs=1, **fields), tmp_path / "run")
    steps = np.genfromtxt(tmp_path / "run" / "steps.csv", delimiter=",", names=True)
    assert (steps["negatives"] > 0).all()


@pytest.mark.parametrize(
    ("teacher", "towers", "refused"),
    [
        ({"model": NAME}, ["image", "text"], True),
        ({"model": NAME, "live": True}, ["image", "text"], False),
        ({"model": NAME}, ["text"], False),  # it is asked about the mirrored texts
        ({"embeddings": "said.npz"}, ["text"], True),
        ({"embeddings": "said.npz"}, ["image"], True),
    ],
)
def test_flips_that_swap_words_need_a_teacher_who_sees_and_reads_what_is_flipped(
    teacher, towers, refused
) -> None:
    fields = {
        "losses": [{"kind": "clip"}, {"kind": "feature", "teacher": "t", "towers": towers}],
        "teachers": [{"name": "t", **teacher}], "augment": {"flip": "swap_words"},
    }  # fmt: skip
    if not refused:
        recipe(Path("x"), **fields)
        return
    with pytest.raises(TrainingError, match=r"'t' would speak .* before the flip. .*live = true"):
        recipe(Path("x"), **fields)


def test_a_live_teacher_of_flipped_images_reads_the_mirrored_texts_too(
    data, teacher, tmp_path, monkeypatch
) -> None:
    asked: list[str] = []

    def noted(recipe, contract, images, texts, **options):
        asked.extend(texts)
        return teachers.lessons(recipe, contract, images, texts, **options)

    monkeypatch.setattr(ready, "lessons", noted)
    fields = {
        "losses": [{"kind": "affinity", "teacher": "t"}],
        "teachers": [{"name": "t", "model": NAME, "pretrained": str(teacher), "live": True}],
        "augment": {"crop": 1, "flip": "swap_words"},
    }
    train(recipe(data, epochs=1, **fields), tmp_path / "run")
    assert {mirrored(text) for text in asked} == {*asked}
    assert any(mirrored(text) != text for text in asked)


def test_a_file_that_lacks_a_text_or_a_tower_is_refused(data, tmp_path) -> None:
    np.savez(
        tmp_path / "texts.npz", texts=np.array(["one text"]), text_embeddings=np.ones((1, 4), np.float32)
    )
    given = [{"name": "t", "embeddings": str(tmp_path / "texts.npz")}]
    alone = {"kind": "feature", "teacher": "t", "towers": ["text"]}
    with pytest.raises(TrainingError, match=r"has no embedding of \d+ of \d+ texts, such as 'a "):
        train(recipe(data, losses=[alone], teachers=given), tmp_path / "run")
    with pytest.raises(TrainingError, match="holds no 'image_files'"):
        train(recipe(data, losses=[alone | {"towers": ["image"]}], teachers=given), tmp_path / "run")


def test_an_untrained_teacher_is_refused(data, tmp_path) -> None:
    fields = {"losses": [{"kind": "feature", "teacher": "t"}], "teachers": [{"name": "t", "model": NAME}]}
    with pytest.raises(TrainingError, match="an untrained model teaches nothing"):
        train(recipe(data, **fields), tmp_path / "run")


# Single towers


def test_a_text_tower_learns_from_texts_alone(data, teacher, tmp_path) -> None:
    random = np.random.default_rng(0)
    words = ["red", "blue", "small", "large", "cup", "dog", "car", "on", "under", "table"]
    lines = [" ".join(random.choice(words, 4)) for _ in range(64)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    fields = {
        "losses": [{"kind": "feature", "teacher": "t", "towers": ["text"]}],
        "teachers": [{"name": "t", "model": NAME, "pretrained": str(teacher)}],
        "data": {"texts": str(tmp_path / "texts.txt")},
    }
    assert "recall" not in train(recipe(tmp_path, epochs=8, **fields), tmp_path / "run")
    fields["data"] = {"texts": str(tmp_path / "texts.txt"), "validation": str(data)}
    assert "recall" in train(recipe(tmp_path, epochs=1, **fields), tmp_path / "validated")
    student = build(NAME, pretrained=tmp_path / "run" / "model.safetensors", contract=SAMPLE)
    untrained = build(NAME, contract=SAMPLE)
    taught = build(NAME, pretrained=teacher, contract=SAMPLE)
    unseen = student.contract.prepare_text(["a red dog under a car", "the small blue cup"])
    with torch.no_grad():
        goal = taught.encode_text(unseen)
        near, far = ((model.encode_text(unseen) * goal).sum(1).mean() for model in (student, untrained))
    assert near > far
    for name, tensor in student.image_tower.state_dict().items():
        assert tensor.equal(untrained.image_tower.state_dict()[name])


def test_an_image_tower_learns_from_images_alone(data, teacher, tmp_path) -> None:
    fields = {
        "losses": [{"kind": "feature", "teacher": "t", "towers": ["image"]}],
        "teachers": [{"name": "t", "model": NAME, "pretrained": str(teacher)}],
        "data": {"images": str(data)},
    }
    train(recipe(data, epochs=2, **fields), tmp_path / "run")
    steps = np.genfromtxt(tmp_path / "run" / "steps.csv", delimiter=",", names=True)
    assert steps["loss"][-1] < steps["loss"][0]


# Live teachers


def live(data: Path, teacher: Path, /, **fields: Any) -> Recipe:
    """Distilling the image tower from pictures that are changed and mixed."""
    document = {
        "losses": [{"kind": "feature", "teacher": "t", "towers": ["image"]}],
        "teachers": [{"name": "t", "model": NAME, "pretrained": str(teacher), "live": True}],
        "data": {"images": str(data)}, "augment": {"crop": 0.4, "mix": 0.5},
    }  # fmt: skip
    return recipe(data, **document | fields)


@pytest.mark.parametrize("cached", [True, False])
def test_a_live_teacher_says_of_changed_pictures_what_the_model_says(data, teacher, cached) -> None:
    taught = live(data, teacher, augment={"crop": 0.4}, data={"images": str(data), "cache": cached})
    contract = get_contract(SAMPLE)
    lesson = teachers.lessons(taught, contract, (), (), device=CPU, workers=0)["t"]
    assert lesson.images is None
    model = build(NAME, pretrained=teacher, contract=SAMPLE)
    assert lesson.dim == model.entry.embed_dim
    size = model.entry.image_size
    pixels = torch.randint(0, 256, (3, 3, size, size), generator=torch.Generator().manual_seed(0))
    host = pixels.float() / 255
    if not cached:
        edge = contract.image.height
        host = functional.interpolate(host, (edge, edge), mode="nearest")
    with torch.no_grad():
        if cached:  # the graph would resize them first
            adapter = model.image_encoder.adapter
            wanted = unit_length(model.image_tower(host * adapter.scale + adapter.shift))
        else:
            wanted = model.encode_image(host)
    given = pixels.to(torch.uint8) if cached else host
    torch.testing.assert_close(lesson.live(given), wanted)


def test_a_live_teacher_looks_at_its_own_size(data, teacher) -> None:
    lesson = teachers.lessons(live(data, teacher), get_contract(SAMPLE), (), (), device=CPU, workers=0)["t"]
    small = torch.full((2, 3, 16, 16), 77, dtype=torch.uint8)
    large = torch.full((2, 3, lesson.live.size, lesson.live.size), 77, dtype=torch.uint8)
    torch.testing.assert_close(lesson.live(small), lesson.live(large))


def test_a_student_follows_a_live_teacher_where_nothing_is_cached_of_its_answers(
    data, teacher, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    train(live(data, teacher, epochs=8), tmp_path / "run")
    steps = np.genfromtxt(tmp_path / "run" / "steps.csv", delimiter=",", names=True)
    assert steps["feature_t"][-3:].mean() < steps["feature_t"][:3].mean()
    assert not (tmp_path / "cache" / "training" / "teachers").exists()


def test_parts_of_a_batch_ask_a_live_teacher_what_the_whole_batch_asks(data, teacher, tmp_path) -> None:
    for parts in (1, 2):
        train(live(data, teacher, epochs=1, accumulate=parts), tmp_path / str(parts))
    one, two = (load_file(tmp_path / str(parts) / "last.safetensors") for parts in (1, 2))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)


def test_mixed_pictures_are_two_pictures_and_the_same_ones_every_time(data, teacher) -> None:
    read, _ = read_training(live(data, teacher).data)
    stored = np.stack([np.full((3, 8, 8), value, np.uint8) for value in range(0, 240, 10)])

    def samples(mix: float) -> Samples:
        options = Augment(crop=1, flip="never", brightness=0, contrast=0, saturation=0, mix=mix)
        return Samples(
            read, np.arange(24), Augmenter(options), get_contract(SAMPLE), 0, 8, "bilinear", 1,
            text_pool((), mirror=False, negatives=0), stored, None, True,
        )  # fmt: skip

    keys = [(epoch, item) for epoch in range(4) for item in range(24)]
    plain, mixed, again = (samples(mix).__getitems__(keys).pixels for mix in (0.0, 0.5, 0.5))
    assert mixed.equal(again)
    differs = (mixed != plain).flatten(1).any(1)
    assert 0.3 < differs.float().mean() < 0.6
    one_at_a_time = torch.cat([samples(0.5).__getitems__([key]).pixels for key in keys])
    assert one_at_a_time.equal(mixed)  # whoever shares the batch


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"losses": [{"kind": "affinity", "teacher": "t"}], "data": {"pairs": "x"}}, "no text fits two"),
        ({"teachers": [{"name": "t", "model": NAME}]}, "live = true of each teacher; not so: t"),
        ({"data": {"images": "x", "cache": False}}, "needs data.cache"),
        ({"teachers": [{"name": "t", "embeddings": "x.npz", "live": True}]}, "live= goes with model="),
    ],
)
def test_what_live_teachers_and_mixing_need_is_checked_first(data, teacher, fields, words) -> None:
    with pytest.raises(TrainingError, match=words):
        live(data, teacher, **fields)


# Soups


@pytest.fixture(scope="module")
def ingredients(data, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ingredients")
    made = []
    for seed in range(3):
        train(recipe(data, epochs=2, seed=seed), folder / str(seed))
        made.append(str(folder / str(seed) / "last.safetensors"))
    return made


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Drawings that no checkpoint was trained on."""
    return drawings(tmp_path_factory.mktemp("others") / "boxes", 24, seed=1)


def test_a_uniform_soup_is_the_mean_of_its_checkpoints(others, ingredients, tmp_path) -> None:
    made = soup(
        NAME, ingredients, str(others), tmp_path / "soup.safetensors", method="uniform", contract=SAMPLE
    )
    assert made.chosen.checkpoints == tuple(ingredients)
    mean = {key: sum(load_file(path)[key] for path in ingredients) / 3 for key in load_file(ingredients[0])}
    cooked = load_file(tmp_path / "soup.safetensors")
    for key, tensor in mean.items():
        torch.testing.assert_close(cooked[key], tensor)
    assert build(NAME, pretrained=tmp_path / "soup.safetensors").weights.startswith("soup.safetensors@")


def test_a_greedy_soup_is_at_least_as_good_as_its_best_checkpoint(
    others, ingredients, tmp_path, capsys
) -> None:
    path = tmp_path / "soup.safetensors"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "soup",
                NAME,
                *ingredients,
                "--validation",
                str(others),
                "--contract",
                SAMPLE,
                "--out",
                str(path),
                "--json",
            ]
        )
    assert ended.value.code == 0
    made = json.loads(capsys.readouterr().out)
    recalls = {tuple(item["checkpoints"]): item["recall"]["value"] for item in made["tried"]}
    chosen = made["chosen"]["recall"]["value"]
    assert chosen >= max(recalls[(single,)] for single in ingredients)
    assert recalls[tuple(made["chosen"]["checkpoints"])] == chosen
    assert evaluate(build(NAME, pretrained=path, contract=SAMPLE), others).recall(10).value == pytest.approx(
        chosen, abs=0.05
    )


def test_soups_are_never_chosen_on_the_benchmark_nor_made_of_one(
    others, ingredients, teacher, tmp_path
) -> None:
    with pytest.raises(TrainingError, match="must never be validated on"):
        soup(NAME, ingredients, "photos", tmp_path / "soup.safetensors", contract=SAMPLE)
    with pytest.raises(TrainingError, match="two checkpoints or more"):
        soup(NAME, [teacher], str(others), tmp_path / "soup.safetensors", contract=SAMPLE)
    with pytest.raises(WeightsError):
        soup(
            NAME,
            [teacher, tmp_path / "none.safetensors"],
            str(others),
            tmp_path / "soup.safetensors",
            contract=SAMPLE,
        )
    assert not (tmp_path / "soup.safetensors").exists()


def test_training_on_the_benchmark_is_refused_before_anything_is_written(tmp_path) -> None:
    for fields in (
        {"data": {"pairs": "photos"}},
        {"data": {"pairs": str(drawings(tmp_path / "d", 8)), "validation": "photos"}},
    ):
        with pytest.raises(TrainingError, match="bundled benchmark, which must never be"):
            train(recipe(tmp_path, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
