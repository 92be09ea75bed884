"""The weights that come with the package: small, described, and never trained on the benchmark."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lpcvc_zoo import get_entry, list_models
from lpcvc_zoo.data import SHIPPED
from lpcvc_zoo.training.guard import benchmark_captions, benchmark_images

TRAINED_ON = Path(__file__).parent.parent / "benchmarks" / "recipes" / "trained_on"
MODELS = [name for name in list_models(pretrained=True) if get_entry(name).pretrained[0].shipped]
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


@pytest.mark.parametrize("path", sorted(TRAINED_ON.glob("*.txt.gz")), ids=lambda path: path.name)
def test_the_benchmark_was_never_trained_on(path: Path) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    trained_on = {tuple(line.split()) for line in lines}
    assert len(trained_on) > 1000
    digits = len(lines[0].split()[1])
    secret = {("image", sha[:digits]) for sha in benchmark_images()}
    secret |= {("text", sha[:digits]) for sha in benchmark_captions()}
    assert not trained_on & secret
