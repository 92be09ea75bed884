"""Make a model's weights by its recipe, from fetching the data to a check of what came out.

    python benchmarks/recipes/make.py efficientvit_b0

A recipe is a TOML file beside this one. Its ``[[steps]]`` are run in turn, from the repository's root; what
is done is skipped, and a step that was stopped goes on. ``[training]`` is for the step that trains,
``[captions]`` what is other where it trains once more. The last step prints numbers, and ``[[expected]]``
says what they should be. The files that come with the package are left as they are.

A step is done anew where its command, its script, what that imports or reads beside it, the recipe that it
reads or a file that an earlier step made has changed since; a run's folder is then emptied first. To make
something anew all the same, delete what its step ``makes``; where that is in a run's folder, the whole
folder, for its state would give it back. Recipes may be followed beside each other: what several of them make
is made by one, and the others wait for it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lpcvc_zoo.bench.locks import held
from lpcvc_zoo.entry import Facts
from lpcvc_zoo.files import sha256_of, write_text

HERE = Path(__file__).parent
RECORD = Path("recipes-data/made.json")
RUNS = Path("runs")


class Step(Facts):
    """``run``: a script beside this one with its options; ``{recipe}`` in it stands for the recipe's file,
    ``{makes}`` for the file that the step ``makes``. A step that makes none is run every time."""

    run: str
    makes: str = ""


class Made(Facts):
    """Of a file that a step makes: all that decides what it will be, by name, and whether the step ended."""

    inputs: Mapping[str, str]
    done: bool


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
    files: dict[str, str] = {}  # what the steps so far have made
    printed = ""
    for step in recipe.steps:
        if not step.makes:
            printed = run(step, path)
            continue
        inputs = own_inputs(step, path, recipe) | files
        waits = partial(print, f"{step.makes} is being made by another: waiting for it.", flush=True)
        with held(lock_of(step.makes), on_wait=waits):
            if recorded().get(step.makes) != Made(inputs=inputs, done=True) or not Path(step.makes).exists():
                begin(step, path, inputs)
                printed = run(step, path)
                end(step, path, inputs)
            files[step.makes] = sha256_of(Path(step.makes))
    problems = [problem for expected in recipe.expected if (problem := unlike(expected, printed))]
    if problems:
        raise SystemExit("\n".join(problems))
    print("As expected." if recipe.expected else "What to expect was not measured.")


def read(path: Path) -> Recipe:
    return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def own_inputs(step: Step, path: Path, recipe: Recipe) -> dict[str, str]:
    """What decides what a step makes, but for the files that it finds."""
    script, *_ = line = command(step, path)
    inputs = {"command": shlex.join(line)}
    inputs |= {source.name: sha256_of(source) for source in sources(path.parent / script)}
    if "{recipe}" in step.run:
        tables = recipe.model_dump_json(include={"training", "captions"})
        inputs["recipe"] = hashlib.sha256(tables.encode()).hexdigest()
    return inputs


def sources(script: Path) -> list[Path]:
    """A script, the modules beside it that it imports, those that they import, and the tables they name."""
    found: set[Path] = set()
    left = [script]
    while left:
        path = left.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        if path.suffix == ".py":
            code = path.read_text(encoding="utf-8")
            modules = re.findall(r"^ *(?:from|import) (\w+)", code, re.MULTILINE)
            left += [path.with_name(f"{name}.py") for name in modules]
            left += [path.with_name(name) for name in re.findall(r'"(\w+\.tsv)"', code)]
    return sorted(found)


def begin(step: Step, path: Path, inputs: Mapping[str, str]) -> None:
    """Make way for a step whose inputs are others than last time; one that was only stopped may go on."""
    before = recorded().get(step.makes)
    if before is not None and before.inputs != inputs:
        names = sorted({*before.inputs, *inputs})
        changed = [name for name in names if before.inputs.get(name) != inputs.get(name)]
        print(f"{step.makes} is made anew, for there changed: {', '.join(changed)}.", flush=True)
        Path(step.makes).unlink(missing_ok=True)
        line = command(step, path)
        out = Path(line[line.index("--out") + 1]) if "--out" in line else None
        if out is not None and out.parent == RUNS and out.is_dir():
            shutil.rmtree(out)  # else training would go on from its state
    record(step.makes, Made(inputs=inputs, done=False))


def end(step: Step, path: Path, inputs: Mapping[str, str]) -> None:
    """Write down that a step is done; SystemExit where it made nothing."""
    if not Path(step.makes).exists():
        raise SystemExit(f"{shlex.join(command(step, path))} ended well and made no {step.makes}.")
    record(step.makes, Made(inputs=inputs, done=True))


def recorded() -> dict[str, Made]:
    """By the file that was made; read each time, for another recipe may be followed beside this one."""
    return TypeAdapter(dict[str, Made]).validate_json(RECORD.read_bytes()) if RECORD.is_file() else {}


def record(name: str, made: Made) -> None:
    with held(lock_of(RECORD.as_posix())):
        made_so_far = recorded() | {name: made}
        write_text(RECORD, TypeAdapter(dict[str, Made]).dump_json(made_so_far, indent=1).decode())


def lock_of(name: str) -> Path:
    """The lock on a file that recipes may share; not beside it, for a run's folder may be emptied."""
    return RECORD.parent / "locks" / f"{name.replace('/', '_')}.lock"


def command(step: Step, recipe: Path) -> list[str]:
    return shlex.split(step.run.format(recipe=recipe, makes=step.makes))


def run(step: Step, recipe: Path) -> str:
    """What the step printed, which is shown as it comes."""
    script, *options = command(step, recipe)
    print(f"$ {shlex.join([script, *options])}", flush=True)
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
