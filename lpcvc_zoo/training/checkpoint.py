"""Checkpoints in this library's own layout, which say what they are of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.files import written_whole
from lpcvc_zoo.model import DualEncoder, Towers
from lpcvc_zoo.weights.read import FACTS


@contextmanager
def saved(path: Path) -> Iterator[Path]:
    """As ``written_whole``; TrainingError where the disk is full or the place can't be written to."""
    from safetensors import SafetensorError

    try:
        with written_whole(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises the second for a full disk
        raise cannot_write(path, error) from None


def cannot_write(path: str | Path, error: Exception) -> TrainingError:
    said = getattr(error, "strerror", None) or error
    return TrainingError(
        f"{path} can't be written ({said}). Free some space and run the same again, or name another --out."
    )


def save_towers(towers: Towers, path: Path, facts: dict[str, Any]) -> None:
    """The towers as ``build(name, pretrained=path)`` takes them: safetensors, with ``facts`` about them.

    The same towers and facts make the same file: one entry of metadata, since several have no fixed order.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in towers.state_dict().items()}
    with saved(path) as temporary:
        save_file(tensors, temporary, metadata={FACTS: json.dumps(facts, sort_keys=True)})


def facts_of(model: DualEncoder, **more: Any) -> dict[str, Any]:
    """What a checkpoint says of itself: the entry, and under what it was trained. ``more``: JSON values."""
    return {
        "entry": model.entry.name,
        "image_size": model.entry.image_size,
        "text_length": model.text_length,
        "contract": model.contract.name,
        "preprocessing": model.preprocessing.model_dump(mode="json"),
        **more,
    }
