"""Training from a recipe to a checkpoint that ``build`` takes; a run that is stopped goes on where it was."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import cache_dir, sha256_of
from lpcvc_zoo.retrieval.metrics import Recall
from lpcvc_zoo.training.batches import Order, loader
from lpcvc_zoo.training.checkpoint import cannot_write, facts_of, save_towers
from lpcvc_zoo.training.distributed import device_of, joined
from lpcvc_zoo.training.folder import BEST, LAST, RunFolder
from lpcvc_zoo.training.progress import RunProgress
from lpcvc_zoo.training.reading import Material, read_checked
from lpcvc_zoo.training.ready import Run, Standing, made_ready
from lpcvc_zoo.training.recipe import Recipe
from lpcvc_zoo.training.records import Records

_LINES = 2000  # of a run's table of steps, at most


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "auto",
    workers: int = 0,
    save_steps: int = 500,
    strict: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train by a recipe into the folder ``out``, or go on with the run that is there; what it came to.

    ``workers`` processes make batches ahead; ``save_steps``: how many steps a killed run loses at most;
    ``strict``: any flaw of the data, such as a missing image, is a DatasetError, not a message. Under
    torchrun, processes share each batch, and only the first one reads and writes ``out``. On the CPU the same
    recipe gives the same bits, stopped and resumed or not (with the same number of threads and processes).

    ``model.safetensors`` there is the best epoch's by the validation set (the last's without one),
    ``last.safetensors`` the last one's. KeyboardInterrupt after Ctrl-C, once the state is saved.
    TrainingError for a folder of another run, data that must not be used, a loss that is not a number, and a
    full disk.
    """
    if save_steps < 1 or workers < 0:
        raise TrainingError(
            f"save_steps {save_steps} and workers {workers}: expected at least 1 step and at least 0 workers."
        )
    folder, where = RunFolder(Path(out)), device_of(device)
    with (
        joined(where) as group,
        RunProgress(console if group.is_first else None) as progress,
        _full_disk_said(folder.path),
    ):
        material, done = group.from_first(
            _opened(recipe, folder, progress, strict=strict) if group.is_first else None
        )
        if done is not None:
            progress.say(f"{folder.path} is finished already.")
            return cast("dict[str, Any]", done)
        run = made_ready(recipe, material, folder, where, workers, group, progress)
        if group.is_first:
            _have_best(run)
        with _stop_asked() as asked:
            _loop(run, asked, workers, save_steps)
        result = _result(run)
        if group.is_first:
            folder.write_result(result)
    return result


def _opened(
    recipe: Recipe, folder: RunFolder, progress: RunProgress, *, strict: bool
) -> tuple[Material, dict[str, Any] | None]:
    """What the run is made of, all as it was if it has begun, and what it came to if it is finished."""
    folder.check(recipe)
    material = read_checked(recipe, progress, strict=strict)
    folder.check_made_of(material.made_of)
    return material, folder.result()


def _have_best(run: Run) -> None:
    """Export the best epoch's checkpoint again, where it was deleted and the state is of the same step."""
    standing, best = run.standing, run.folder.path / BEST
    if not standing.found or best.is_file():
        return
    if run.stepper.taken != standing.best_epoch * run.per_epoch:
        raise TrainingError(
            f"{best} is gone. It was of epoch {standing.best_epoch}, and the state is of later steps. Put "
            "the file back; or delete the folder, or name another --out, to train anew."
        )
    assert run.validation is not None
    run.progress.say(f"{best} is gone; it is exported again from the state.")
    _keep(run, BEST, run.validation.recall(run.stepper.result), standing.best_epoch)


def _loop(run: Run, asked: Callable[[], bool], workers: int, save_steps: int) -> None:
    group, stepper, recipe = run.group, run.stepper, run.recipe
    order = Order(
        len(run.samples),
        recipe.batch_size,
        run.steps,
        stepper.taken,
        recipe.seed,
        group.rank,
        group.processes,
        run.samples.lengths,
    )
    records = Records(run.folder.path, stepper.taken) if group.is_first else None
    if records is not None and records.board is None:
        run.progress.say("No events for TensorBoard: it needs pip install 'lpcvc-zoo[train]'.")
    every = max(1, run.steps // _LINES)
    began = time.monotonic()
    try:
        if _stopped_early(run):
            return
        for batch in loader(run.samples, order, workers):
            values = stepper.step(batch)
            step = stepper.taken
            epoch = (step - 1) // run.per_epoch + 1
            run.progress.at("training", step, run.steps, f"epoch {epoch}, loss {values['loss']:.4f}")
            if records is not None and (step % every == 0 or step == run.steps):
                records.step({"step": step, "epoch": epoch, **values})
            if step % run.per_epoch == 0:
                _end_epoch(run, records, epoch, time.monotonic() - began)
                began = time.monotonic()
                if _stopped_early(run):
                    break
            elif step % save_steps == 0:
                _save(run)
            if group.any(asked(), stepper.device) and step < run.steps:
                _save(run)
                raise KeyboardInterrupt
    finally:
        if records is not None:
            records.close()


def _stopped_early(run: Run) -> bool:
    return run.recipe.patience is not None and run.standing.stale >= run.recipe.patience


def _end_epoch(run: Run, records: Records | None, epoch: int, seconds: float) -> None:
    """Validate, keep the best, save; the first process decides for all."""
    standing = run.standing
    if records is not None:
        row: dict[str, float | int | str] = {
            "step": run.stepper.taken, "epoch": epoch, "seconds": round(seconds, 2)
        }  # fmt: skip
        if run.validation is not None:
            recall = run.validation.recall(run.stepper.result)
            better = recall.value > standing.best
            if better:
                standing = Standing(recall.value, epoch, 0)
                _keep(run, BEST, recall, epoch)
            else:
                standing = Standing(standing.best, standing.best_epoch, standing.stale + 1)
            row |= {
                "recall": recall.value, "low": recall.low, "high": recall.high, "chance": recall.chance,
                "metric": run.validation.label,
            }  # fmt: skip
            run.progress.say(
                f"epoch {epoch}: {run.validation.label} {recall.value:.4f} "
                f"[{recall.low:.4f}, {recall.high:.4f}], chance {recall.chance:.4f}"
                f"{', the best so far' if better else ''}"
            )
        records.epoch(row)
    run.standing = run.group.from_first(standing)
    _save(run)


def _save(run: Run) -> None:
    if run.group.is_first:
        state = {
            "stepper": run.stepper.state(),
            "standing": vars(run.standing),
        }
        run.folder.save_state(state)


def _keep(run: Run, name: str, recall: Recall | None, epoch: int) -> None:
    """A checkpoint of the towers as they are now, with what is known of them."""
    more = {} if recall is None else {"validation": recall.model_dump(mode="json")}
    model = run.stepper.student.model
    facts = facts_of(model, started_from=model.weights, epoch=epoch, data=run.fingerprint, **more)
    save_towers(run.stepper.result, run.folder.path / name, facts)


def _result(run: Run) -> dict[str, Any]:
    epochs = run.stepper.taken // run.per_epoch
    best = run.folder.path / BEST
    if run.group.is_first:
        _keep(run, LAST, None, epochs)
        if not run.standing.found:
            _keep(run, BEST, None, epochs)
    early = _stopped_early(run) and epochs < run.recipe.epochs
    result: dict[str, Any] = {
        "model": run.recipe.model,
        "checkpoint": BEST,
        "sha256": sha256_of(best) if run.group.is_first else None,
        "steps": run.stepper.taken,
        "epochs": epochs,
        "stopped": f"no better recall in {run.recipe.patience} epochs" if early else "all epochs are done",
        "data": run.fingerprint,
        "torch": torch.__version__,
    }
    if run.validation is not None and run.standing.found:
        result |= {
            "metric": run.validation.label, "recall": run.standing.best, "best_epoch": run.standing.best_epoch
        }  # fmt: skip
    return result


@contextmanager
def _full_disk_said(folder: Path) -> Iterator[None]:
    """Whatever was being written, in the folder or in the cache; and a cache that can't be written at all."""
    try:
        yield
    except OSError as error:
        full = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numpy gives no number
        if type(error) is OSError and error.errno in full:
            raise cannot_write(error.filename or f"{folder} or {cache_dir()}", error) from None
        cache, place = cache_dir().absolute(), Path(error.filename or "").absolute()
        if error.filename and (place.is_relative_to(cache) or cache.is_relative_to(place)):
            raise TrainingError(
                f"The cache folder {cache} can't be used: {error}. Set LPCVC_ZOO_CACHE to one that can."
            ) from None
        raise


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a termination was asked for since; a second Ctrl-C stops at once."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread: signals stay as they are
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
