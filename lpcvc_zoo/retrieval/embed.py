"""A dataset's embeddings: computed a few at a time, each batch checked, and saved whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.files import try_to_write_file, written_whole
from lpcvc_zoo.retrieval.ranks import pairs
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets.base import Array

Embeddings = NDArray[np.float32]
SAME = 1e-6  # embeddings closer than this in every number are the same


@dataclass(frozen=True)
class Model:
    """Whatever is scored: ``run`` turns a batch of prepared inputs into embeddings ``[N, D]``."""

    contract: Contract
    run: Callable[[Tower, Array], Array]
    identity: dict[str, Any]


def embed(
    model: Model, dataset: RetrievalDataset, batch_size: int, progress: Callable[[int, int], None] | None
) -> tuple[Embeddings, Embeddings]:
    """Embeddings of all images and all texts, in the dataset's order.

    Only one batch of prepared images is held at a time: one image is 12 MB under lpcvc2026.
    """
    total, done = len(dataset.images) + len(dataset.texts), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    images = embed_tower(model, dataset, "image", batch_size, advance)
    return images, embed_tower(model, dataset, "text", batch_size, advance, images.shape[1])


def embed_tower(
    model: Model,
    dataset: RetrievalDataset,
    tower: Tower,
    batch_size: int,
    advance: Callable[[int], None],
    dim: int | None = None,
) -> Embeddings:
    """One tower's embeddings ``[N, D]``; ``advance`` is told how many are new; ``dim``: what D must be."""
    outputs = _outputs(model, dataset, tower, batch_size, advance)
    return checked(model.contract, dataset, tower, batch_size, outputs, dim)


def parts(dataset: RetrievalDataset, tower: Tower, size: int) -> list[slice]:
    """The dataset's images or texts in batches of ``size``, in order."""
    count = len(dataset.images if tower == "image" else dataset.texts)
    return [slice(begin, begin + size) for begin in range(0, count, size)]


def prepared(contract: Contract, dataset: RetrievalDataset, tower: Tower, part: slice) -> Array:
    """A tower's inputs for some of a dataset's images or texts."""
    if tower == "text":
        return contract.prepare_text(dataset.texts[part])
    return np.concatenate([_prepare_image(contract, path) for path in dataset.images[part]])


def output_of(contract: Contract, tower: Tower, outputs: Mapping[str, Array]) -> Array:
    """The embeddings among a tower's outputs; ContractError where they are not there."""
    wanted = contract.embedding.image_name if tower == "image" else contract.embedding.text_name
    if wanted not in outputs:
        raise ContractError(f"{tower} tower", f"an output {wanted!r}", f"outputs {sorted(outputs)}")
    return outputs[wanted]


def checked(
    contract: Contract,
    dataset: RetrievalDataset,
    tower: Tower,
    size: int,
    outputs: Iterable[Array],
    dim: int | None = None,
) -> Embeddings:
    """A tower's outputs for ``parts`` of that size as embeddings ``[N, D]``; ``dim``: what D has to be.

    ContractError names the first image or text whose embedding breaks the contract, and towers that give
    everything the same.
    """
    names = [str(path) for path in dataset.images] if tower == "image" else list(map(repr, dataset.texts))
    batches: list[Array] = []
    for part, batch in zip(parts(dataset, tower, size), outputs, strict=True):
        _check(contract, tower, batch, names[part], dim)
        dim = batch.shape[1]
        batches.append(batch)
    result: Embeddings = np.concatenate(batches).astype(np.float32, copy=False)
    if len(result) > 1 and np.ptp(result, axis=0).max() <= SAME:
        raise ContractError(
            f"{tower} embedding",
            f"different ones for different {tower}s",
            f"the same for all {len(result)}, such as {names[0]} and {names[1]}",
            f"The {tower} tower ignores its input, or its weights or its export are broken.",
        )
    return result


def check_writable(path: Path) -> None:
    """Raise DatasetError unless a file can be written there; makes nothing."""
    try:
        try_to_write_file(path)
    except OSError as error:
        said = error.strerror or error
        raise DatasetError(f"Embeddings can't be written to {path}: {said}. Name another file.") from None


def save(
    path: Path, dataset: RetrievalDataset, images: Embeddings, texts: Embeddings, identity: dict[str, Any]
) -> None:
    """Write an .npz that ``numpy.load`` reads without pickle.

    ``image_embeddings`` ``[images, D]`` and ``text_embeddings`` ``[texts, D]``, float32; ``image_files``, as
    seen from the folder that holds them all, and ``texts``, both in that order; ``links`` ``[L, 2]``, int64:
    rows of (image, text) that belong together, by their places; ``dataset`` and ``model``: JSON that says
    which data and what model gave them.
    """
    _, owner, item = pairs(dataset.positives)
    folder = os.path.commonpath([image.parent for image in dataset.images])
    facts = {"name": dataset.name, "fingerprint": dataset.fingerprint(), "licence": dataset.licence}
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                image_embeddings=images,
                text_embeddings=texts,
                image_files=np.array([image.relative_to(folder).as_posix() for image in dataset.images]),
                texts=np.array(dataset.texts),
                links=np.stack([owner, item], axis=1),
                dataset=np.array(json.dumps(facts)),
                model=np.array(json.dumps(identity)),
            )
    except OSError as error:
        raise DatasetError(f"Embeddings can't be written to {path}: {error.strerror or error}.") from error


def _outputs(
    model: Model,
    dataset: RetrievalDataset,
    tower: Tower,
    size: int,
    advance: Callable[[int], None],
) -> Iterator[Array]:
    for part in parts(dataset, tower, size):
        batch = model.run(tower, prepared(model.contract, dataset, tower, part))
        yield batch
        advance(len(batch))


def _prepare_image(contract: Contract, path: Path) -> Array:
    try:
        return contract.prepare_image(path)
    except ContractError as error:
        if str(path) in str(error):
            raise
        raise ContractError(error.field, error.expected, f"{error.got}, in {path}") from error


def _check(contract: Contract, tower: Tower, batch: Array, names: Sequence[str], dim: int | None) -> None:
    """Check a batch of embeddings; the error names the first image or text whose embedding is wrong."""
    try:
        contract.check_embedding(batch, dim)
        if len(batch) != len(names):
            raise ContractError("embedding.shape", f"{len(names)} rows", str(len(batch)))
    except ContractError as whole:
        culprit, name = whole, names[0]
        if getattr(batch, "ndim", 0) == 2 and len(batch) == len(names):
            for row, name_of_row in enumerate(names):
                try:
                    contract.check_embedding(batch[row : row + 1], dim)
                except ContractError as error:
                    culprit, name = error, name_of_row
                    break
        raise ContractError(
            f"{tower} {culprit.field}", culprit.expected, f"{culprit.got}, for {name}"
        ) from None
