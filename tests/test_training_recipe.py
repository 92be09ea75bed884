"""Recipes that would fail, or silently do something else, once their data is prepared."""

from __future__ import annotations

from typing import Any

import pytest
from training_tiny import NAME

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.training.recipe import Recipe, checked

pytestmark = pytest.mark.usefixtures("tiny_registered")


def recipe(*losses: dict[str, Any], **fields: Any) -> Recipe:
    teachers = [{"name": "t", "model": NAME}] if any("teacher" in loss for loss in losses) else []
    document = {"model": NAME, "data": {"pairs": "x"}, "losses": losses, "teachers": teachers, **fields}
    return checked(document, "test")


def test_a_teacher_that_no_loss_learns_from_is_refused() -> None:
    with pytest.raises(TrainingError, match="no loss learns from t: name it in a loss"):
        recipe({"kind": "clip"}, teachers=[{"name": "t", "model": NAME}])


def test_a_teachers_name_takes_no_dot() -> None:
    fields = {"teachers": [{"name": "a.b", "model": NAME}]}
    with pytest.raises(TrainingError, match=r"teacher 'a\.b': a name takes no dot"):
        recipe({"kind": "feature", "teacher": "a.b"}, **fields)


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        ("clip", ""), ("siglip", ""), ("negatives", ""), ("affinity", "temperature"),
        ("interactive", "temperature"), ("feature", "towers"), ("relational", "temperature towers"),
    ],
)  # fmt: skip
def test_a_loss_takes_only_what_it_uses(kind: str, takes: str) -> None:
    teacher = {} if kind in ("clip", "siglip", "negatives") else {"teacher": "t"}
    data = {"pairs": "x", "negatives": int(kind == "negatives")}
    for name, value in {"temperature": 0.2, "towers": ["image"]}.items():
        loss = {"kind": kind, **teacher, name: value}
        if name in takes:
            recipe(loss, data=data)
            continue
        with pytest.raises(TrainingError, match=f"the loss '{kind}' .*{name}"):
            recipe(loss, data=data)


def test_a_recipe_may_be_written_out_whole_and_read_again() -> None:
    made = recipe({"kind": "clip"}, {"kind": "feature", "teacher": "t"})
    assert checked(made.model_dump(), "again") == made
