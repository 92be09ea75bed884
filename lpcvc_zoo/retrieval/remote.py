"""Embeddings of a dataset from a device far away: all batches are submitted before anyone waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lpcvc_zoo.contract import TOWERS, Contract, Tower
from lpcvc_zoo.retrieval.embed import Embeddings, checked, output_of, parts, prepared
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets.base import Array, AsyncTarget, Compiled
from lpcvc_zoo.targets.references import until_done

BATCH: dict[Tower, int] = {"image": 16, "text": 4096}  # 200 MB of images under lpcvc2026, and 3 MB of texts


def embed(
    target: AsyncTarget, compiled: Mapping[Tower, Compiled], contract: Contract, dataset: RetrievalDataset
) -> tuple[Embeddings, Embeddings]:
    """Embeddings of all images and all texts, in the dataset's order."""

    def work() -> tuple[Embeddings, Embeddings]:
        references = {
            tower: [
                target.submit_infer(compiled[tower], batch(contract, dataset, tower, part))
                for part in parts(dataset, tower, BATCH[tower])
            ]
            for tower in TOWERS
        }
        return joined(
            contract,
            dataset,
            {tower: map(target.collect, references[tower]) for tower in TOWERS},
        )

    return until_done(work)


def batch(contract: Contract, dataset: RetrievalDataset, tower: Tower, part: slice) -> dict[str, Array]:
    """A tower's input by its name, for some of a dataset's images or texts."""
    name = contract.image.name if tower == "image" else contract.text.name
    return {name: prepared(contract, dataset, tower, part)}


def joined(
    contract: Contract, dataset: RetrievalDataset, outputs: Mapping[Tower, Iterable[Mapping[str, Array]]]
) -> tuple[Embeddings, Embeddings]:
    """Embeddings from what both towers gave for their batches, checked as any others."""
    found: dict[Tower, Embeddings] = {}
    for tower in TOWERS:
        batches = (output_of(contract, tower, given) for given in outputs[tower])
        dim = None if tower == "image" else found["image"].shape[1]
        found[tower] = checked(contract, dataset, tower, BATCH[tower], batches, dim)
    return found["image"], found["text"]
