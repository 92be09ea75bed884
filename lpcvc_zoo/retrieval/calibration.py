"""Photos and texts that quantisation ranges are taken from, here or by a target that quantises itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from lpcvc_zoo.contract import CONTRACTS, Contract, Tower
from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.exporting.calibrate import Pool
from lpcvc_zoo.retrieval import embed, photos
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets.base import Array


@dataclass(frozen=True)
class Calibration:
    """The first images and texts of a dataset, prepared by whichever contract a tower's input is of."""

    dataset: RetrievalDataset
    images: int = 32  # 400 MB under lpcvc2026
    texts: int = 256

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint()} {self.images} {self.texts}"

    def __call__(self, tower: Tower, inputs: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Array]:
        """A batch for a tower with these inputs (name -> shape and dtype); ContractError for unknown ones."""
        count = self.images if tower == "image" else self.texts
        for contract in CONTRACTS.values():
            if inputs == _inputs(contract, tower):
                name = contract.image.name if tower == "image" else contract.text.name
                return {name: embed.prepared(contract, self.dataset, tower, slice(0, count))}
        known = [_inputs(contract, tower) for contract in CONTRACTS.values()]
        raise ContractError(f"{tower} inputs", f"those of a contract: {known}", str(dict(inputs)))


@cache
def calibrating(name: str) -> RetrievalDataset:
    """The dataset of that name, read once."""
    return load_dataset(name)


def pool(name: str) -> Pool | None:
    """What a dataset offers for quantising here; None for the bundled part, which is taken anyway."""
    if name == photos.CALIBRATION:
        return None
    dataset = calibrating(name)
    return Pool(dataset.name, dataset.images, dataset.texts, dataset.fingerprint())


def check_apart(calibration: RetrievalDataset, scored: RetrievalDataset) -> None:
    """DatasetError where an image that calibrates would be scored too."""
    own = {image.resolve() for image in calibration.images}
    both = sorted(image.name for image in scored.images if image.resolve() in own)
    if both:
        raise DatasetError(
            f"{len(both)} images of {scored.name}, such as {both[0]}, are also in {calibration.name}, which "
            "calibrates: expected none. Choose other data for one of the two."
        )


def _inputs(contract: Contract, tower: Tower) -> dict[str, tuple[tuple[int, ...], str]]:
    spec = contract.image if tower == "image" else contract.text
    return {spec.name: (tuple(spec.shape(1)), spec.dtype)}
