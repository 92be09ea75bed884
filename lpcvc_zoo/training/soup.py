"""Model soups chosen on a validation set: all checkpoints averaged, or greedily those that help.

Uniform and greedy soups: Wortsman et al., arXiv:2203.05482.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import given_path, try_to_write_file
from lpcvc_zoo.model import DualEncoder, Towers
from lpcvc_zoo.registry import build
from lpcvc_zoo.retrieval.metrics import Recall
from lpcvc_zoo.training import guard
from lpcvc_zoo.training.checkpoint import cannot_write, facts_of, save_towers
from lpcvc_zoo.training.defaults import own_validation
from lpcvc_zoo.training.folder import DATA
from lpcvc_zoo.training.pixels import Done
from lpcvc_zoo.training.progress import Say, tell
from lpcvc_zoo.training.recipe import Source
from lpcvc_zoo.training.sources import TrainingData, read_validation
from lpcvc_zoo.training.validate import Validation
from lpcvc_zoo.weights.read import read_facts

Method = Literal["uniform", "greedy"]


class Tasted(BaseModel):
    """Checkpoints averaged, and their recall on the validation set."""

    model_config = ConfigDict(frozen=True)

    checkpoints: tuple[str, ...]
    recall: Recall


class Soup(BaseModel):
    """A soup: what is in it, its recall, and all that was tried on the way, single checkpoints first."""

    model_config = ConfigDict(frozen=True)

    method: Method
    metric: str
    chosen: Tasted
    tried: tuple[Tasted, ...]


@dataclass
class _Kitchen:
    """Averages checkpoints of one model and scores the average."""

    model: DualEncoder
    validation: Validation
    device: torch.device

    def taste(self, checkpoints: Sequence[str]) -> Tasted:
        towers = self.towers(checkpoints).to(self.device)
        return Tasted(checkpoints=tuple(checkpoints), recall=self.validation.recall(towers))

    def towers(self, checkpoints: Sequence[str]) -> Towers:
        entry = self.model.entry
        made = build(
            entry.name,
            pretrained=list(checkpoints) if len(checkpoints) > 1 else checkpoints[0],
            contract=self.model.contract,
            image_size=entry.image_size,
            text_length=self.model.text_length,
            fuse=False,
        )
        towers = Towers(made.image_tower, made.text_tower)
        towers.logit_scale = made.logit_scale
        return towers.eval()


def soup(
    name: str,
    checkpoints: Sequence[str | Path],
    validation: str,
    out: str | Path,
    *,
    method: Method = "greedy",
    contract: str | None = None,
    image_size: int | None = None,
    text_length: int | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    done: Done | None = None,
    say: Say | None = None,
) -> Soup:
    """Average fine-tuned checkpoints of one model into the file ``out``, judged on ``validation``.

    ``uniform``: all of them. ``greedy``: from the best on, each is added if the recall does not fall. Recall
    is the contract's metric, image to text. ``say`` is told what of the validation set was left out.
    ``contract``, ``image_size``, ``text_length``: by default what the checkpoints say they were trained at;
    where they don't, lpcvc2026 and the entry's own.

    TrainingError for fewer than two checkpoints, for ones that were trained at different sizes or at others
    than asked for, for an ``out`` that can't be written, and for a validation set with photos or captions of
    the bundled benchmark, or of nothing but images that a checkpoint's run was trained on (others are left
    out; the list is in its folder). WeightsError where checkpoints are not alike.
    """
    names = [str(path) for path in checkpoints]
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise TrainingError(f"A soup needs two checkpoints or more, each once; got {', '.join(names)}.")
    at = _trained_at(names, contract=contract, image_size=image_size, text_length=text_length)
    _check_writable(Path(out))
    data = read_validation(Source(path=own_validation(validation, say)))
    if say is not None:
        tell(data.problems, say)
    data, hashes = guard.guarded(data, "validated on", say=say)
    data = _apart(data, hashes, names, say)
    model = build(
        name,
        pretrained=names[0],
        contract=at["contract"] or "lpcvc2026",
        image_size=at["image_size"],
        text_length=at["text_length"],
        fuse=False,
    )
    device = device or torch.device("cpu")
    judge = Validation(data, model.to(device), device=device, workers=workers, done=done)
    kitchen = _Kitchen(model, judge, device)
    tried = [kitchen.taste([single]) for single in names]
    if method == "uniform":
        chosen = kitchen.taste(names)
        tried.append(chosen)
    else:
        chosen = _greedy(kitchen, tried)
    result = Soup(method=method, metric=judge.label, chosen=chosen, tried=tuple(tried))
    facts = facts_of(model, soup=result.model_dump(mode="json"))
    save_towers(kitchen.towers(chosen.checkpoints), Path(out), facts)
    return result


def _trained_at(checkpoints: Sequence[str], **asked: Any) -> dict[str, Any]:
    """What the checkpoints were all trained at, and what was asked for where none of them says it."""
    paths = {name: given_path(name) for name in checkpoints}
    facts = {name: read_facts(path) for name, path in paths.items() if path.is_file()}
    at: dict[str, Any] = {}
    for what, wanted in asked.items():
        said = {name: own[what] for name, own in facts.items() if what in own}
        if wanted is not None:
            said["what was asked for"] = wanted
        if len(set(said.values())) > 1:
            listed = ", ".join(f"{name}: {value}" for name, value in said.items())
            raise TrainingError(
                f"A soup needs one {what} that all its checkpoints were trained at; got {listed}. "
                "Leave out the option, or the checkpoints that differ."
            )
        at[what] = next(iter(said.values()), None)
    return at


def _apart(
    data: TrainingData, hashes: Sequence[str], checkpoints: Sequence[str], say: Say | None
) -> TrainingData:
    """The validation set without images that any checkpoint's run was trained on, by the list beside it.

    So the data of runs that held out a share of it is reduced to that share. TrainingError for less than two
    texts left.
    """
    paths = [given_path(name) for name in checkpoints]
    lists = {path.parent / DATA for path in paths}
    untold = [path for path in paths if not (path.parent / DATA).is_file() and _was_trained(path)]
    if untold and say is not None:
        say(
            f"No {DATA} lies beside {', '.join(map(str, untold))}: what they were trained on is not known, "
            "and not left out."
        )
    lines = (path.read_text(encoding="utf-8").splitlines() for path in lists if path.is_file())
    trained_on = {line.removeprefix("image ") for some in lines for line in some}
    kept = data.part(place for place, digest in enumerate(hashes) if digest not in trained_on)
    if len(kept.images) == len(data.images):
        return data
    lost = f"{len(data.images) - len(kept.images)} of the {len(data.images)} images to validate on"
    if not kept.tells_models_apart:
        raise TrainingError(
            f"{lost} were trained on for these checkpoints, by the {DATA} beside them. Recall on them says "
            "nothing about new images. Name a validation set of other images."
        )
    if say is not None:
        say(f"{lost} were trained on for these checkpoints and are left out.")
    return kept


def _was_trained(path: Path) -> bool:
    return path.is_file() and not read_facts(path).keys().isdisjoint({"data", "soup"})


def _check_writable(path: Path) -> None:
    """Before the work, not after it; makes nothing."""
    try:
        try_to_write_file(path)
    except OSError as error:
        raise cannot_write(path, error) from None


def _greedy(kitchen: _Kitchen, tried: list[Tasted]) -> Tasted:
    """The best single one, then each of the others in turn if it does not make the soup worse."""
    singles = sorted(tried, key=lambda item: -item.recall.value)  # equal ones stay in the order given
    pot = singles[0]
    for other in singles[1:]:
        mixed = kitchen.taste([*pot.checkpoints, *other.checkpoints])
        tried.append(mixed)
        if mixed.recall.value >= pot.recall.value:
            pot = mixed
    return pot
