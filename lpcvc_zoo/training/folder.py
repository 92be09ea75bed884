"""A run's folder: its recipe, its state to go on from, its checkpoints. One folder holds one run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import write_text, written_whole
from lpcvc_zoo.training.recipe import Recipe, differences

RECIPE, STATE, DATA, RESULT = "recipe.json", "state.pt", "data.txt", "result.json"
BEST, LAST = "model.safetensors", "last.safetensors"


class RunFolder:
    """``path``, which the first process alone reads and writes: others may see another disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_begun(self) -> bool:
        """Before its first state, a run has nothing to lose."""
        return (self.path / STATE).is_file()

    def check(self, recipe: Recipe) -> None:
        """TrainingError unless the folder is new, or one to go on with by this recipe."""
        path, written = self.path, self.path / RECIPE
        if path.exists() and not written.is_file() and (not path.is_dir() or any(path.iterdir())):
            raise TrainingError(f"{path} is not empty and holds no run. Name another folder with --out.")
        changed = differences(written.read_text(encoding="utf-8"), recipe) if self.has_begun else []
        if changed:
            raise TrainingError(
                f"{path} holds a run of another recipe. Go on with the same, or name another --out:\n  "
                + "\n  ".join(changed)
            )

    def begin(self, recipe: Recipe) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.has_begun:
            write_text(self.path / RECIPE, recipe.model_dump_json(indent=2) + "\n")

    def save_state(self, state: dict[str, Any]) -> None:
        with written_whole(self.path / STATE) as temporary:
            torch.save(state, temporary)

    def state(self) -> dict[str, Any] | None:
        """What the run saved last, on the CPU; None if it saved nothing yet."""
        return read_state(self.path / STATE)

    def result(self) -> dict[str, Any] | None:
        """What a finished run came to."""
        path = self.path / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write_result(self, result: dict[str, Any]) -> None:
        write_text(self.path / RESULT, json.dumps(result, indent=2) + "\n")


def read_state(path: Path) -> dict[str, Any] | None:
    """What ``torch.save`` wrote there, on the CPU; None where nothing is. TrainingError if it is damaged."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} can't be read ({error}). Delete the folder to start again.") from None
    return state
