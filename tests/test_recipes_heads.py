"""What the heads of the ConSE towers are made of: names of colours, and photos with captions to choose by."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lpcvc_zoo import get_entry, load_dataset
from lpcvc_zoo.backbones._colours import NAMES, Colours

RECIPES = Path(__file__).parent.parent / "benchmarks" / "recipes"


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    yield
    for name in ("captioned", "colours", "efficientvit_image", "minilm", "scenes"):
        sys.modules.pop(name, None)


def test_lab_is_that_of_the_standard(recipes) -> None:
    """sRGB's primaries and white under D65, as CIE's formulas and any colour library have them."""
    from colours import lab

    made = lab(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]], float))
    known = [[53.24, 80.09, 67.20], [87.74, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(made, known, atol=0.03)


def test_every_shade_goes_by_its_own_name(recipes) -> None:
    from colours import SHADES, named

    assert tuple(SHADES) == NAMES
    for name, shades in SHADES.items():
        shares = named(np.array(shades) / 255)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert {NAMES[place] for place in shares.argmax(axis=1)} == {name}


def test_a_student_sees_the_teachers_colours_though_its_pixels_are_normalised_otherwise(recipes) -> None:
    from efficientvit_image import Teacher

    teacher = Teacher("efficientnet_lite0_96_text_xxs")
    own, other = teacher.preprocessing, get_entry("efficientvit_m0_text_xs").preprocessing
    assert own != other
    student = Colours(384)
    student.load_state_dict(teacher.colours(other))
    picture = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen, expected = (
            branch((picture - torch.tensor(given.mean).view(3, 1, 1)) / torch.tensor(given.std).view(3, 1, 1))
            for branch, given in ((student, other), (teacher.tower.colours, own))
        )
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_captioned_photos_become_a_dataset_and_a_missing_one_is_told(recipes, tmp_path, monkeypatch) -> None:
    import captioned

    table = tmp_path / "captioned.tsv"
    table.write_text("some-photos: a/one.jpg\ta cat.\ta grey cat.\nsome-photos: a/two.jpg\ta dog.\ta cat.\n")
    monkeypatch.setattr(captioned, "CAPTIONS", table)
    rows = [("ingredients/backgrounds/0.webp", "a/one.jpg"), ("held_out/0.jpg", "a/two.jpg")]
    for file, _ in rows:
        (tmp_path / file).parent.mkdir(parents=True)
        Image.new("RGB", (32, 24)).save(tmp_path / file)
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file", "made_of"), *((name, f"some-photos 1.2-3: {of}") for name, of in rows)]
        )
    photos = captioned.captioned(tmp_path)
    captioned.write(photos, tmp_path / "out")
    earlier = tmp_path / "out" / "held_out_1.jpg"
    earlier.symlink_to("a picture that is collected no longer")
    captioned.write(photos, tmp_path / "out")  # again: over what is there
    assert not earlier.is_symlink()
    dataset = load_dataset(str(tmp_path / "out"))
    assert dataset.texts == ("a cat.", "a dog.", "a grey cat.")
    by_name = {path.name: set(of) for path, of in zip(dataset.images, dataset.positives, strict=True)}
    assert by_name == {"backgrounds_0.webp": {0, 2}, "held_out_0.jpg": {0, 1}}
    table.write_text("some-photos: a/three.jpg\ta cow.\n")
    with pytest.raises(SystemExit, match=r"lacks 1 photos, such as some-photos: a/three\.jpg"):
        captioned.captioned(tmp_path)
    with pytest.raises(SystemExit, match=r"no elsewhere/manifest\.csv: run collect_pictures\.py"):
        captioned.captioned(Path("elsewhere"))
