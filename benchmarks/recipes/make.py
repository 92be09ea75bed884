"""Make a model's weights by its recipe, from fetching the data to a check of what came out.

    python benchmarks/recipes/make.py efficientvit_b0

A recipe is a TOML file beside this one. Its ``[[steps]]`` are run in turn, from the repository's root; what
is done is skipped, and a step that was stopped goes on. ``[training]`` is for the step that trains,
``[captions]`` what is other where it trains once more. The last step prints numbers, and ``[[expected]]``
says what they should be. To make something anew, delete what its step ``makes``. The files that come with
the package are left as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

from lpcvc_zoo.entry import Facts
from lpcvc_zoo.files import write_text

HERE = Path(__file__).parent
DONE = Path("recipes-data/done.txt")  # the commands that ended well, one a line


class Step(Facts):
    """``run``: a script beside this one with its options; ``{recipe}`` in it stands for the recipe's file,
    ``{makes}`` for the file that the step ``makes``. A step that makes none is run every time."""

    run: str
    makes: str = ""


class Expected(Facts):
    """The last step is to print a line "``what``: number", with a number this near to ``value``."""

    what: str
    value: float
    tolerance: float


class Recipe(Facts):
    """Nothing ``expected``: what this gives was not measured."""

    steps: tuple[Step, ...]
    training: Mapping[str, Any] | None = None
    captions: Mapping[str, Any] | None = None
    expected: tuple[Expected, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", choices=sorted(path.stem for path in HERE.glob("*.toml")))
    try:
        make(Path(os.path.relpath(HERE / f"{parser.parse_args().recipe}.toml")))
    except KeyboardInterrupt:
        raise SystemExit("Stopped; run the same again to go on.") from None


def make(path: Path) -> None:
    """Run what is left of a recipe's steps; SystemExit where one fails or the result is not as expected."""
    recipe = read(path)
    done = DONE.read_text().splitlines() if DONE.is_file() else []
    printed = ""
    for step in dropwhile(lambda step: is_done(step, path, done), recipe.steps):
        line = shlex.join(command(step, path))
        print(f"$ {line}", flush=True)
        printed = run(step, path)
        if step.makes and not Path(step.makes).exists():
            raise SystemExit(f"{line} ended well and made no {step.makes}.")
        if step.makes and line not in done:
            done.append(line)
            DONE.parent.mkdir(parents=True, exist_ok=True)
            write_text(DONE, "\n".join(done) + "\n")
    problems = [problem for expected in recipe.expected if (problem := unlike(expected, printed))]
    if problems:
        raise SystemExit("\n".join(problems))
    print("As expected." if recipe.expected else "What to expect was not measured.")


def read(path: Path) -> Recipe:
    return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def is_done(step: Step, recipe: Path, done: list[str]) -> bool:
    return bool(step.makes) and Path(step.makes).exists() and shlex.join(command(step, recipe)) in done


def command(step: Step, recipe: Path) -> list[str]:
    return shlex.split(step.run.format(recipe=recipe, makes=step.makes))


def run(step: Step, recipe: Path) -> str:
    """What the step printed, which is shown as it comes."""
    script, *options = command(step, recipe)
    line = [sys.executable, "-u", str(recipe.parent / script), *options]
    lines = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            lines.append(text)
    if process.returncode:
        raise SystemExit(f"{script} failed; run the same again to go on.")
    return "".join(lines)


def unlike(expected: Expected, printed: str) -> str:
    """What is wrong with what was printed; empty where nothing is."""
    found = re.search(rf"^{re.escape(expected.what)}: (-?[\d.]+)", printed, re.MULTILINE)
    if found is None:
        return f"The last step did not print {expected.what!r}."
    if abs(float(found[1]) - expected.value) <= expected.tolerance:
        return ""
    return f"{expected.what} is {found[1]}, not {expected.value} within {expected.tolerance}."


if __name__ == "__main__":
    main()
