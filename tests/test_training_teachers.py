"""Teachers that are files of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_tiny import drawings

from lpcvc_zoo.training.recipe import Teacher
from lpcvc_zoo.training.teachers import _Given

pytestmark = pytest.mark.usefixtures("tiny_registered")


def test_one_source_may_be_relative_and_another_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [sorted(drawings(tmp_path / name, 4).glob("*.png"))[0] for name in ("a", "b")]
    assert len({path.name for path in images}) == 1  # only their folders tell them apart
    rows = np.eye(2, dtype=np.float32)
    names = [path.relative_to(tmp_path).as_posix() for path in images]
    np.savez("said.npz", image_files=np.array(names), image_embeddings=rows)
    given = _Given(Teacher(name="t", embeddings="said.npz"))
    said = given.images([Path(names[0]), images[1]])
    np.testing.assert_array_equal(said.rows([0, 1]), rows)
