"""A run's folder: its recipe, its state to go on from, its checkpoints. One folder holds one run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import sha256_of, try_to_write
from lpcvc_zoo.training.checkpoint import cannot_write, saved
from lpcvc_zoo.training.recipe import Recipe, differences

RECIPE, MADE_OF, DATA = "recipe.json", "made_of.json", "data.txt"
STATE, RESULT = "state.pt", "result.json"
BEST, LAST = "model.safetensors", "last.safetensors"


class RunFolder:
    """``path``, which the first process alone reads and writes: others may see another disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_begun(self) -> bool:
        """Before its first state, a run has nothing to lose; nor where state and checkpoint were deleted."""
        finished = (self.path / RESULT).is_file() and (self.path / BEST).is_file()
        return finished or (self.path / STATE).is_file()

    def check(self, recipe: Recipe) -> None:
        """TrainingError unless the folder is new, or one to go on with by this recipe, and can be written."""
        path, written = self.path, self.path / RECIPE
        if path.exists() and not written.is_file() and (not path.is_dir() or any(path.iterdir())):
            raise TrainingError(f"{path} is not empty and holds no run. Name another folder with --out.")
        changed = differences(written.read_text(encoding="utf-8"), recipe) if self.has_begun else []
        if changed:
            raise TrainingError(
                f"{path} holds a run of another recipe. Go on with the same, or name another --out:\n  "
                + "\n  ".join(changed)
            )
        try:
            try_to_write(path)
        except OSError as error:
            raise cannot_write(path, error) from None

    def check_made_of(self, made_of: dict[str, Any]) -> None:
        """TrainingError where a run that has begun was made of other data, weights or teachers."""
        if not self.has_begun:
            return
        written = self.path / MADE_OF
        if not written.is_file():
            raise TrainingError(
                f"{self.path} holds a run of an earlier version, which did not note what it was made of "
                f"({MADE_OF}). Name another --out."
            )
        before = json.loads(written.read_text(encoding="utf-8"))
        changed = [what for what in before | made_of if before.get(what) != made_of.get(what)]
        if changed:
            raise TrainingError(
                f"Since {self.path} was begun, there changed: {'; '.join(changed)}. Put back what was there, "
                "or name another --out."
            )

    def begin(self, recipe: Recipe, made_of: dict[str, Any], manifest: str) -> None:
        """Note what a new run is made of; a run that has begun keeps its notes."""
        if self.has_begun:
            return
        self._write(RECIPE, recipe.model_dump_json(indent=2) + "\n")
        self._write(MADE_OF, json.dumps(made_of, indent=2) + "\n")
        self._write(DATA, manifest)
        (self.path / RESULT).unlink(missing_ok=True)

    def save_state(self, state: dict[str, Any]) -> None:
        with saved(self.path / STATE) as temporary:
            torch.save(state, temporary)

    def state(self) -> dict[str, Any] | None:
        """What the run saved last, on the CPU; None if it saved nothing yet."""
        return read_state(self.path / STATE)

    def result(self) -> dict[str, Any] | None:
        """What a finished run came to; None where its checkpoint is gone, which the state may still hold.

        TrainingError where another file is in the checkpoint's place.
        """
        path, best = self.path / RESULT, self.path / BEST
        if not path.is_file() or not best.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (found := sha256_of(best)) != result["sha256"]:
            raise TrainingError(
                f"{best} is not what the finished run left there: its sha256 is {found}, expected "
                f"{result['sha256']}. Put that file back; or move this one away and run the same again, "
                "which exports it anew where the state still holds it."
            )
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        self._write(RESULT, json.dumps(result, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with saved(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_state(path: Path) -> dict[str, Any] | None:
    """What ``torch.save`` wrote there, on the CPU; None where nothing is. TrainingError if it is damaged."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} can't be read ({error}). Delete the folder to start again.") from None
    return state
