"""What is done for one cell: export, compile, profile, score. Each step's outcome goes into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

import lpcvc_zoo
from lpcvc_zoo.bench.cut import TextCut
from lpcvc_zoo.bench.ledger import Ledger, now
from lpcvc_zoo.bench.plan import UNTRAINED, Cell, digest
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.exporting.artifact import Artifact, load_artifact
from lpcvc_zoo.files import sha256_of
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.retrieval.metrics import Scores
from lpcvc_zoo.targets.base import Compiled, Profile, Target, Tower

if TYPE_CHECKING:
    from lpcvc_zoo.entry import Entry
    from lpcvc_zoo.retrieval.records import RetrievalDataset

M = TypeVar("M", bound=BaseModel)


def export_in_worker(
    entry: str, weights: str, contract: str, cut: TextCut, rewrites: str, precision: str, calibration: str
) -> str:
    """Export a model, or find it in the cache; returns the artifact's folder."""
    from lpcvc_zoo.exporting.cache import cached_export
    from lpcvc_zoo.retrieval.calibration import pool

    artifact = cached_export(
        entry,
        rewrites=rewrites,
        precision=precision,
        pool=pool(calibration),
        pretrained=_pretrained(weights),
        contract=contract,
        **cut._asdict(),
    )
    return str(artifact.folder)


def export_preprocessing_in_worker(entry: str, weights: str, contract: str) -> str:
    """Export the in-graph image preprocessing of a model alone; returns the file's path."""
    from lpcvc_zoo.contract import get_contract
    from lpcvc_zoo.exporting.cache import cached_preprocessing
    from lpcvc_zoo.registry import get_entry

    found = get_entry(entry)
    preprocessing = found.preprocessing if weights == UNTRAINED else found.checkpoint(weights).preprocessing
    return str(cached_preprocessing(get_contract(contract), preprocessing, found.image_size))


def torch_embeddings_in_worker(entry: str, weights: str, contract: str, cut: TextCut, dataset: str) -> str:
    """Embed a dataset by the torch model, or find that in the cache; returns the .npz file's path."""
    from lpcvc_zoo.files import cache_dir
    from lpcvc_zoo.registry import build
    from lpcvc_zoo.retrieval.evaluate import evaluate

    data = load_dataset(dataset)
    made = export_id(entry, weights, contract, cut, "none", "float", photos.CALIBRATION)
    key = digest({"export": made, "dataset": data.fingerprint()})
    path = cache_dir() / "embeddings" / f"{key}.npz"
    if not path.exists():
        model = build(entry, pretrained=_pretrained(weights), contract=contract, **cut._asdict())
        evaluate(model, data, save_embeddings=path)
    return str(path)


def export_id(
    entry: str, weights: str, contract: str, cut: TextCut, rewrites: str, precision: str, calibration: str
) -> str:
    """Identifies an export by everything that shapes it, without making it."""
    from lpcvc_zoo.exporting.cache import export_key
    from lpcvc_zoo.retrieval.calibration import pool

    return export_key(
        entry,
        rewrites=rewrites,
        precision=precision,
        pool=pool(calibration),
        pretrained=_pretrained(weights),
        contract=contract,
        **cut._asdict(),
    )


def weights(entry: Entry, pretrained: bool | None) -> str:
    """What a sweep uses of an entry: a checkpoint's tag, or "untrained".

    ``pretrained=True``: the default checkpoint, fetched if need be; ``None``: the first one that is on this
    machine already, found without a network; ``False``: none.
    """
    if pretrained is False or not entry.pretrained:
        return UNTRAINED
    if pretrained:
        return entry.pretrained[0].tag
    from lpcvc_zoo.weights.fetch import is_here

    here = (record.tag for record in entry.pretrained if is_here(record))
    return next(here, UNTRAINED)


def load_dataset(name: str) -> RetrievalDataset:
    from lpcvc_zoo.retrieval import datasets

    return datasets.load_dataset(name)


def fingerprint(dataset: RetrievalDataset) -> str:
    """Identifies a dataset by everything that a score depends on."""
    return dataset.fingerprint()


def chance(dataset: RetrievalDataset, contract: str) -> float:
    """What ranking at random gives on a dataset by the contract's metric."""
    from lpcvc_zoo.contract import get_contract
    from lpcvc_zoo.retrieval import metrics

    metric = get_contract(contract).metric
    return metrics.chance(dataset, metric.k, metric.mode)


def score(
    artifact: Artifact, target: Target, compiled: dict[Tower, Compiled], dataset: RetrievalDataset
) -> Scores:
    """Score both towers as the target runs them."""
    from lpcvc_zoo.contract import get_contract
    from lpcvc_zoo.retrieval.evaluate import CompiledPair, evaluate

    return evaluate(
        CompiledPair(target, compiled), dataset, contract=get_contract(artifact.manifest.contract)
    )


def write_report(rows: Sequence[ResultRow], folder: Path) -> None:
    from lpcvc_zoo.bench import report

    report.write_report(rows, folder)


@dataclass(frozen=True)
class Tools:
    """The other rooms as a sweep uses them. The first three run in workers, so must be importable there."""

    export: Callable[..., str] = export_in_worker  # of a cell's export_args
    export_preprocessing: Callable[[str, str, str], str] = export_preprocessing_in_worker
    torch_embeddings: Callable[[str, str, str, TextCut, str], str] = torch_embeddings_in_worker
    export_id: Callable[..., str] = export_id
    weights: Callable[[Entry, bool | None], str] = weights
    load_dataset: Callable[[str], RetrievalDataset] = load_dataset
    fingerprint: Callable[[RetrievalDataset], str] = fingerprint
    chance: Callable[[RetrievalDataset, str], float] = chance
    score: Callable[[Artifact, Target, dict[Tower, Compiled], RetrievalDataset], Scores] = score
    write_report: Callable[[Sequence[ResultRow], Path], None] = write_report


class CellWork:
    """Measures and scores one claimed cell; what is known so far is in ``known``, also when a step fails."""

    def __init__(self, cell: Cell, ledger: Ledger, since: str) -> None:
        self.cell, self._ledger, self._since = cell, ledger, since
        self.known: dict[str, Any] = {"versions": {"lpcvc-zoo": lpcvc_zoo.__version__}}
        self._compiled: dict[Tower, Compiled] = {}

    def open(self, folder: str) -> Artifact:
        """Check the exported files and note what their manifest says."""
        artifact = load_artifact(folder)
        manifest = artifact.manifest
        self.known |= {
            "weights": manifest.weights,
            "rewrites": manifest.rewrites,
            "text_length": manifest.text_length,
            "text_depth": manifest.text_depth,
            "image_size": manifest.image_size,
            "embed_dim": manifest.embed_dim,
        }
        self.known["versions"] |= manifest.versions
        for tower in manifest.towers:
            made = manifest.tower(tower)
            parity = made.quantized.agreement if made.quantized else made.parity
            self.known[f"{tower}_sha256"] = made.sha256
            self.known[f"{tower}_parity_cosine"] = parity.min_cosine if parity else None
        return artifact

    def measure(self, artifact: Artifact, doing: Callable[[str], None]) -> None:
        """Compile and profile the towers there are."""
        target = self.cell.target
        for tower in artifact.manifest.towers:
            file, source = artifact.path(tower), artifact.manifest.tower(tower).sha256
            doing(f"compiling the {tower} tower")
            compiled = self._compile(tower, file, source)
            self._compiled[tower] = compiled
            doing(f"measuring the {tower} tower")
            profile = remembered(
                self._ledger, self.cell.id, f"profile {tower}", source, self._since, Profile,
                lambda compiled=compiled: target.profile(compiled),  # type: ignore[misc]
            )  # fmt: skip
            self.known[tower] = profile
            self.known["versions"] |= profile.runtime_versions

    def score(self, artifact: Artifact, dataset: RetrievalDataset, tools: Tools) -> None:
        """Score on the dataset, where the cell asks for it."""
        if self.cell.dataset is None:
            return
        manifest = artifact.manifest
        source = f"{manifest.hashes} {self.cell.dataset}"
        self.known["scores"] = remembered(
            self._ledger, self.cell.id, "score", source, self._since, Scores,
            lambda: tools.score(artifact, self.cell.target, self._compiled, dataset),
        )  # fmt: skip

    def row(self, error: str | None = None) -> ResultRow:
        cell, entry = self.cell, self.cell.entry
        facts = {
            "key": cell.key,
            "entry": entry.name,
            "family": entry.family,
            "weights": cell.weights,
            "contract": cell.contract,
            "target": cell.target.name,
            "device": cell.target.device,
            "precision": cell.precision,
            **cell.cut._asdict(),
            "image_size": entry.image_size,
            "embed_dim": entry.embed_dim,
            "image_params": entry.image_params,
            "error": error,
            "created": now(),
        } | self.known
        # The entry's costs are of an image of its own size, and of all a text's tokens through all layers.
        if facts["image_size"] == entry.image_size:
            facts["image_gmacs"] = entry.image_gmacs
        if cell.cut.text_depth in (None, entry.text_layers):
            facts["text_params"] = entry.text_params
            if facts["text_length"] in (None, entry.text.context_length):
                facts["text_gmacs"] = entry.text_gmacs
        return ResultRow(**facts)

    def _compile(self, tower: Tower, file: Path, source: str) -> Compiled:
        """Compile, or take up an earlier compilation: for a remote target that is a job already paid for."""
        step = f"compile {tower}"
        since = self._since
        stored = self._ledger.value(self.cell.id, step, source, since=since)
        if stored is not None:
            reference = Path(Compiled.model_validate_json(stored).reference)
            if reference.is_absolute() and not reference.exists():
                since = now()  # a local file that has gone: compile again
        return remembered(
            self._ledger, self.cell.id, step, source, since, Compiled,
            lambda: self.cell.target.compile(file, tower), lambda compiled: compiled.reference,
        )  # fmt: skip


def measure_preprocessing(path: Path, cell: Cell, ledger: Ledger, since: str) -> float | None:
    """Median milliseconds of the in-graph preprocessing by itself; remembered for this cell."""
    target = cell.target
    profile = remembered(
        ledger, cell.id, "profile preprocessing", sha256_of(path), since, Profile,
        lambda: target.profile(target.compile(path, "image")),
    )  # fmt: skip
    return profile.latency.median_ms if profile.latency else None


def remembered(
    ledger: Ledger,
    key: str,
    step: str,
    source: str,
    since: str,
    kind: type[M],
    make: Callable[[], M],
    reference: Callable[[M], str] | None = None,
) -> M:
    """A step's outcome from the ledger, or made now and written there before and after."""
    stored = ledger.value(key, step, source, since=since)
    if stored is not None:
        return kind.model_validate_json(stored)
    ledger.start(key, step, source)
    try:
        outcome = make()
    except Exception as error:
        ledger.fail(key, step, describe(error))
        raise
    ledger.finish(key, step, outcome.model_dump_json(round_trip=True), reference and reference(outcome))
    return outcome


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _pretrained(weights: str) -> str | bool:
    return False if weights == UNTRAINED else weights
