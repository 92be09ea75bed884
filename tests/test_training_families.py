"""Real entries train: one of each family for a step or two, and one by the command on a COCO tree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lpcvc_zoo import build
from lpcvc_zoo.cli import main
from lpcvc_zoo.training.batches import Batch
from lpcvc_zoo.training.distributed import Group
from lpcvc_zoo.training.losses import Objective
from lpcvc_zoo.training.recipe import Recipe, checked
from lpcvc_zoo.training.steps import Stepper
from lpcvc_zoo.training.student import student_of
from lpcvc_zoo.training.texts import tower_ids

CPU = torch.device("cpu")
TEXTS = ("a red box on the left.", "two dogs asleep under a table.")
FAMILIES = [
    "efficientvit_m0_text_s", "efficientnet_lite0_96_text_xxs", "tinyclip_vit_8m_16_text_3m",
    pytest.param("mobileclip_s0", marks=pytest.mark.slow),
    pytest.param("openai_clip_vit_b32", marks=pytest.mark.slow),
]  # fmt: skip


def recipe(model: str, **fields: Any) -> Recipe:
    options = {"lr": 1e-6, "warmup": 0}
    return checked(
        {"model": model, "data": {"pairs": "x"}, "batch_size": 2, "optimiser": options, **fields}, "test"
    )


def stepper(chosen: Recipe) -> Stepper:
    student = student_of(chosen)
    objective = Objective(chosen.losses, student.model.entry.embed_dim, {})
    return Stepper(student, objective, {}, chosen, 4, Group(), CPU)


def batch(made: Stepper) -> Batch:
    """Two images of noise with a text each, as the cache and the contract give them."""
    model = made.student.model
    size = model.entry.image_size
    noise = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[0], [1]])
    ids = tower_ids(TEXTS, model).of(places.numpy())
    return Batch(torch.tensor([0, 1]), noise.to(torch.uint8), places, ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_of_each_family_move_all_of_both_towers_to_a_lower_loss(name) -> None:
    made = stepper(recipe(name))
    given = batch(made)
    before = {key: value.detach().clone() for key, value in made.student.towers.named_parameters()}
    # a scale of 0 at the start hides what is before it from the first step
    first, second = (made.step(given)["loss"] for _ in range(2))
    assert second < first < math.inf
    moved = {key: not value.equal(before[key]) for key, value in made.student.towers.named_parameters()}
    assert [key for key, did in moved.items() if not did and before[key].ndim > 1] == []


def test_weights_that_were_only_distilled_are_contrasted_at_an_untrained_models_scale() -> None:
    """Shipped ones have ``logit_scale`` 0: none was learnt. Distilled again, they still say so."""
    name, tag = "efficientnet_lite0_96_text_xxs", "conse_minilm"
    student = student_of(recipe(name, pretrained=tag))
    assert student.scale_is_new
    assert student.towers.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    again = {
        "losses": [{"kind": "feature", "teacher": "t"}],
        "teachers": [{"name": "t", "model": name, "pretrained": tag}],
    }
    assert student_of(recipe(name, pretrained=tag, **again)).towers.logit_scale.item() == 0


def test_a_recipe_with_activations_computed_twice_takes_the_same_steps() -> None:
    runs = []
    for twice in (False, True):
        made = stepper(recipe("efficientvit_m0_text_s", checkpointing=twice, accumulate=2, batch_size=4))
        given = batch(made)
        doubled = Batch(*(torch.cat([part, part]) for part in given._tensors().values()))
        values = [made.step(doubled)["loss"] for _ in range(2)]
        state = made.student.towers.state_dict()
        runs.append((values, {key: state[key] for key in state if "running" in key or "num_batches" in key}))
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-4)
    assert runs[0][1]
    for key, plain in runs[0][1].items():
        torch.testing.assert_close(runs[1][1][key], plain, rtol=1e-3, atol=1e-4)


def test_the_command_trains_a_real_entry_on_a_coco_tree_under_the_challenges_contract(
    cache: Path, tmp_path, capsys
) -> None:
    root, out = tmp_path / "coco", tmp_path / "run"
    for part, count in (("train2017", 4), ("val2017", 3)):
        (root / part).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        names = [f"{place:012}.jpg" for place in range(count)]
        for place, name in enumerate(names):
            grey = Image.linear_gradient("L").resize((96 + 16 * place + count, 80)).rotate(90 * place)
            Image.merge("RGB", [grey, grey.rotate(180), grey]).save(root / part / name)
        document = {
            "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
            "annotations": [
                {"image_id": place, "caption": f"{part}: slope {place}, {side}."}
                for place in range(count)
                for side in ("light at the top", "grey")
            ],
        }
        (root / "annotations" / f"captions_{part}.json").write_text(json.dumps(document))
    name = "efficientvit_m0_text_s"
    with pytest.raises(SystemExit) as ended:
        main(["train", name, "--data", str(root), "--epochs", "1", "--batch-size", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "4 images, 2 steps in 1 epochs" in said
    assert json.loads((out / "recipe.json").read_text())["contract"] == "lpcvc2026"
    assert "recall" in json.loads((out / "result.json").read_text())
    model = build(name, pretrained=out / "model.safetensors")
    image = model.contract.prepare_image(root / "val2017" / f"{0:012}.jpg")
    with torch.no_grad():
        assert model.encode_image(image).norm() == pytest.approx(1, abs=1e-5)
