"""What the objective calls its terms."""

from __future__ import annotations

import torch

from lpcvc_zoo.model import unit_length
from lpcvc_zoo.training.losses import Embedded, Objective
from lpcvc_zoo.training.recipe import Loss


def embedded(dim: int) -> Embedded:
    random = torch.Generator().manual_seed(dim)
    return Embedded(
        image=unit_length(torch.randn(5, dim, generator=random)),
        text=unit_length(torch.randn(5, 1, dim, generator=random)),
    )


def test_terms_of_one_kind_and_teacher_are_all_told() -> None:
    losses = [
        Loss(kind="feature", teacher="t", towers=("image",)),
        Loss(kind="feature", teacher="t", towers=("text",), weight=3),
        Loss(kind="clip"),
    ]
    said = Objective(losses, 6, {"t": 6})(embedded(6), {"t": embedded(6)}, torch.tensor(2.0))
    assert set(said) == {"loss", "feature_t", "feature_t.2", "clip"}
    whole = said["feature_t"] + 3 * said["feature_t.2"] + said["clip"]
    torch.testing.assert_close(said["loss"], whole)
