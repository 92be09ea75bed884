"""Scoring a model on a dataset by one code path, whether torch, ONNX Runtime or a device computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.contract import TOWERS, Contract, Tower, get_contract
from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.retrieval import embed, metrics, photos, remote
from lpcvc_zoo.retrieval.datasets import load_dataset
from lpcvc_zoo.retrieval.metrics import Scores
from lpcvc_zoo.retrieval.records import RetrievalDataset
from lpcvc_zoo.targets import get_target
from lpcvc_zoo.targets.base import Array, AsyncTarget, Compiled, Target

if TYPE_CHECKING:
    from torch import nn

    from lpcvc_zoo.model import DualEncoder

BATCH_SIZE = 8  # 100 MB of images under lpcvc2026


@dataclass(frozen=True)
class CompiledPair:
    """Both towers of one model as one target has them ready to run."""

    target: Target
    compiled: Mapping[Tower, Compiled]


def evaluate(
    what: DualEncoder | Artifact | CompiledPair,
    dataset: RetrievalDataset | str | Path,
    *,
    contract: Contract | str | None = None,
    save_embeddings: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Embed all images and texts of a dataset and score their retrieval, both ways.

    ``what``: a torch model (run where its weights are), an export (run by ONNX Runtime), or towers compiled
    for a target. ``dataset``: one already loaded, or a name or path for ``load_dataset``; of "photos", a
    quantised export is scored on those that calibrated nothing. ``contract`` is needed for compiled towers,
    which don't say theirs; otherwise it must be the model's own. Images are prepared ``batch_size`` at a
    time. ``save_embeddings`` names an .npz to write (see ``embed.save``).
    ``progress`` is called with how many images and texts are done, and how many there are; neither applies to
    an ``AsyncTarget``, which gets everything at once.

    Raises ContractError for an image that can't be read, for embeddings that break the contract (naming tower
    and image or text) and for towers that give everything the same embedding.
    """
    if batch_size < 1:
        raise ContractError("batch_size", "1 or more", str(batch_size))
    if not isinstance(dataset, RetrievalDataset):
        dataset = load_dataset(_scored_on(what, dataset))
    if save_embeddings is not None:
        embed.check_writable(Path(save_embeddings))  # before the work, not after it
    model = _opened(what, get_contract(contract) if isinstance(contract, str) else contract)
    if isinstance(what, CompiledPair) and isinstance(what.target, AsyncTarget):
        images, texts = remote.embed(what.target, what.compiled, model.contract, dataset)
    else:
        images, texts = embed.embed(model, dataset, batch_size, progress)
    if save_embeddings is not None:
        embed.save(Path(save_embeddings), dataset, images, texts, model.identity)
    return scored(images, texts, dataset, model.contract)


def scored(
    images: embed.Embeddings, texts: embed.Embeddings, dataset: RetrievalDataset, contract: Contract
) -> Scores:
    """Scores of embeddings ``[N, D]`` in the dataset's order, at the usual ks and the contract's own."""
    return metrics.score(images, texts, dataset, sorted({*metrics.KS, contract.metric.k}))


def _scored_on(what: object, dataset: str | Path) -> str | Path:
    if isinstance(what, Artifact) and isinstance(dataset, str):
        return photos.scored_on(dataset, [what.manifest.precision])
    return dataset


def _opened(what: object, contract: Contract | None) -> embed.Model:
    """Anything that can be evaluated, as its contract, its embeddings of a batch, and its identity."""
    if isinstance(what, Artifact):
        manifest = what.manifest
        own = _agreed(get_contract(manifest.contract), contract)
        target = get_target()
        pair = CompiledPair(target, {tower: target.compile(what.path(tower), tower) for tower in TOWERS})
        facts = manifest.model_dump(include={"entry", "weights", "text_length", "text_depth"})
        return embed.Model(own, partial(_run_compiled, pair, own), facts | _identity(pair, own))
    if isinstance(what, CompiledPair):
        if contract is None:
            raise ContractError("contract", "the contract that the towers were made under", "none")
        return embed.Model(contract, partial(_run_compiled, what, contract), _identity(what, contract))
    from lpcvc_zoo.model import DualEncoder

    if not isinstance(what, DualEncoder):
        expected = "a DualEncoder, an export's Artifact or a CompiledPair"
        raise ContractError("what", expected, f"{type(what).__name__} {what!r}")
    _agreed(what.contract, contract)
    return torch_model(what)


def torch_model(model: DualEncoder, text_encoder: nn.Module | None = None) -> embed.Model:
    """A torch model as what can be scored; ``text_encoder`` stands in for its own, with its text tower."""
    import torch

    identity = {
        "entry": model.entry.name,
        "weights": model.weights,
        "text_length": model.text_length,
        "text_depth": model.text_depth,
        "contract": model.contract.name,
        "torch": torch.__version__,
    }
    encoders = {"image": model.image_encoder, "text": text_encoder or model.text_encoder}
    return embed.Model(model.contract, partial(_run_torch, model, encoders), identity)


def _agreed(own: Contract, asked: Contract | None) -> Contract:
    if asked is not None and asked != own:
        raise ContractError("contract", f"{own.name!r}, which the model was made under", repr(asked.name))
    return own


def _identity(pair: CompiledPair, contract: Contract) -> dict[str, Any]:
    return {
        "contract": contract.name,
        "target": pair.target.fingerprint(),
        "towers": {tower: pair.compiled[tower].model_dump(mode="json") for tower in TOWERS},
    }


def _run_compiled(pair: CompiledPair, contract: Contract, tower: Tower, batch: Array) -> Array:
    spec = contract.image if tower == "image" else contract.text
    return embed.output_of(contract, tower, pair.target.infer(pair.compiled[tower], {spec.name: batch}))


def _run_torch(model: DualEncoder, encoders: Mapping[str, nn.Module], tower: Tower, batch: Array) -> Array:
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            result: torch.Tensor = encoders[tower](torch.from_numpy(batch).to(model.logit_scale.device))
            array: Array = result.float().cpu().numpy()
            return array
    finally:
        model.train(training)
