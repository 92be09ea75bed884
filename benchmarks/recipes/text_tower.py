"""Train a text tower by the ``[training]`` of its recipe, which is a recipe of ``lpcvc-zoo train``.

    python benchmarks/recipes/text_tower.py benchmarks/recipes/text_xs.toml --out runs/text_xs_words
    python benchmarks/recipes/text_tower.py benchmarks/recipes/text_xs.toml --captions --out runs/text_xs

``--captions``: the second run, with what the recipe's ``[captions]`` has in place of ``[training]``'s.

A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from rich.console import Console

from lpcvc_zoo.training.recipe import checked
from lpcvc_zoo.training.run import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--captions", action="store_true")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args()
    recipe = tomllib.loads(given.recipe.read_text(encoding="utf-8"))
    if given.captions and "captions" not in recipe:
        parser.error(f"{given.recipe} has no [captions]")
    document = recipe["training"] | (recipe["captions"] if given.captions else {})
    train(checked(document, str(given.recipe)), given.out, device=given.device, console=Console())


if __name__ == "__main__":
    main()
