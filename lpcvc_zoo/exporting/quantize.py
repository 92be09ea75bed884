"""Quantised towers as QDQ ONNX, calibrated on real photos and captions and judged by their embeddings."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.contract import Contract, Tower, get_contract
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import (
    MANIFEST,
    Artifact,
    Calibration,
    Parity,
    Quantized,
    TowerFile,
    both_towers,
    check_folder,
)
from lpcvc_zoo.exporting.calibrate import Pool, Quantizable, bundled_pool, calibration_inputs
from lpcvc_zoo.exporting.engines import ENGINES, Engine, Prepared, find_engine
from lpcvc_zoo.exporting.precision import FLOAT, by_tower, canonical
from lpcvc_zoo.files import sha256_of, write_text

SAMPLES, SEED = 32, 0
COLLAPSED = 0.9  # a mean cosine to float below this is no model any more
GOOD = 0.99  # below this, the layers that cost most are left in float, as far as it pays
MOST_KEPT = 0.25  # of all nodes


class Cost(BaseModel):
    """What quantising one part of a tower, and nothing else, costs: 1 - mean cosine to the float tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tower: Tower
    by: str  # "layer", or "operator" for all of one type
    name: str
    nodes: int
    cost: float


@dataclass(frozen=True)
class _How:
    """What all towers of one call are quantised with."""

    engine: Callable[[Prepared], Engine]
    pool: Pool
    samples: int
    seed: int


def quantize(
    artifact: Artifact,
    out_dir: str | Path,
    precision: str,
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    pool: Pool | None = None,
    force: bool = False,
    engine: str = ENGINES[0],
) -> Artifact:
    """Quantise a float export's towers, each to its precision, into ``out_dir`` with a manifest of its own.

    Weights have 8 bits per channel, activations 8 or 16; ``samples`` photos and captions of ``pool`` (the
    bundled calibration part), drawn by ``seed``, give the ranges. Where the mean cosine to float of those
    stays below 0.99, the layers or types of operators that cost most are left in float, a quarter of the
    nodes at most, as long as that helps. ExportError where it stays below 0.9 on bundled photos and captions
    that neither calibrated nor chose anything, unless ``force``; where the artifact is quantised already, or
    lies in ``out_dir`` itself. ``engine``: one of ``ENGINES``; MissingExtraError where it is not installed.
    """
    started = time.monotonic()
    how = _How(find_engine(engine), pool or bundled_pool(), samples, seed)
    out_dir = Path(out_dir)
    _check_float(artifact)
    if out_dir.resolve() == artifact.folder.resolve():
        raise ExportError(f"{out_dir} holds the float towers to quantise: expected another folder.")
    check_folder(out_dir)
    manifest = artifact.manifest
    contract = get_contract(manifest.contract)
    with both_towers(out_dir) as folder:
        towers = {
            tower: _tower(artifact, tower, contract, chosen, folder, how, force)
            for tower, chosen in by_tower(precision).items()
        }
    made = manifest.model_copy(
        update={
            "image": towers["image"],
            "text": towers["text"],
            "precision": canonical(precision),
            "seconds": round(manifest.seconds + time.monotonic() - started, 2),
        }
    )
    write_text(out_dir / MANIFEST, made.model_dump_json(indent=2))
    return Artifact(out_dir, made)


def explain(
    artifact: Artifact,
    precision: str,
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    pool: Pool | None = None,
    engine: str = ENGINES[0],
) -> list[Cost]:
    """What each layer, and each type of operator, costs when it alone is quantised; the dearest first.

    ExportError where no tower is to be quantised, or where the artifact is quantised already.
    """
    check_quantises(precision)
    how = _How(find_engine(engine), pool or bundled_pool(), samples, seed)
    _check_float(artifact)
    contract = get_contract(artifact.manifest.contract)
    found: list[Cost] = []
    for tower, chosen in by_tower(precision).items():
        if chosen != FLOAT:
            with _opened(artifact, tower, contract, chosen, how) as (part, _):
                found += _costs(part, tower)
    return sorted(found, key=lambda cost: -cost.cost)


def check_quantises(precision: str) -> None:
    """ExportError where every tower would stay in float; UnknownNameError for what is no precision."""
    if canonical(precision) == FLOAT:
        raise ExportError(
            f"Nothing is quantised in {FLOAT}: expected w8a16, w8a8, or one of them for a tower."
        )


def _check_float(artifact: Artifact) -> None:
    """Quantised once more, a tower would be measured against what is not float."""
    own = artifact.manifest.precision
    if own != FLOAT:
        raise ExportError(
            f"{artifact.folder} is quantised already, in {own}: expected a float export. "
            "Name both towers' precisions at once: image=w8a16+text=w8a8."
        )


def _tower(
    artifact: Artifact,
    tower: Tower,
    contract: Contract,
    precision: str,
    folder: Path,
    how: _How,
    force: bool,
) -> TowerFile:
    """Write one tower into ``folder``."""
    made = artifact.manifest.tower(tower)
    out = folder / made.file
    if precision == FLOAT:
        shutil.copyfile(artifact.path(tower), out)
        return made
    with _opened(artifact, tower, contract, precision, how) as (part, calibration):
        kept = _kept(part, tower)
        file = part.quantized(_nodes(part, kept))
        agreements = part.judged_by.agreements(file)
        shutil.copyfile(file, out)
    cosines = [parity.min_cosine for parity in agreements]
    mean = float(np.mean(cosines))
    if not mean >= COLLAPSED and not force:
        raise ExportError(
            f"The {tower} tower collapses in {precision}: mean cosine {mean:.3f} to the float tower, "
            f"at least {COLLAPSED} is expected. "
            f"{'Use w8a16, leave' if precision == 'w8a8' else 'Leave'} this tower in float ({tower}=float), "
            "or force it."
        )
    return made.model_copy(
        update={
            "sha256": sha256_of(out),
            "size_bytes": out.stat().st_size,
            "nodes": len(onnx.load(out).graph.node),
            "quantized": Quantized(
                precision=precision,
                engine=part.engine.version,
                calibration=calibration,
                kept=kept,
                mean_cosine=mean,
                agreement=Parity(
                    samples=len(cosines),
                    min_cosine=float(np.min(cosines)),
                    max_abs_difference=max(parity.max_abs_difference for parity in agreements),
                ),
            ),
        }
    )


def _kept(part: Quantizable, tower: Tower) -> tuple[str, ...]:
    """What to leave in float: nothing where the tower is good without, else the dearest parts that help."""
    best = part.mean_cosine(())
    kept: tuple[str, ...] = ()
    if best >= GOOD:
        return kept
    most = MOST_KEPT * len(_nodes(part, tuple(part.layers)))
    for cost in sorted(_costs(part, tower), key=lambda cost: -cost.cost):
        tried = (*kept, cost.name)
        nodes = _nodes(part, tried)
        if len(nodes) > most:
            continue
        mean = part.mean_cosine(nodes)
        if mean > best:
            best, kept = mean, tried
        if best >= GOOD:
            break
    return kept


def _nodes(part: Quantizable, names: tuple[str, ...]) -> set[str]:
    """The nodes of these layers and types of operators."""
    groups = part.layers | part.operators
    return {node for name in names for node in groups[name]}


def _costs(part: Quantizable, tower: Tower) -> list[Cost]:
    everything = _nodes(part, tuple(part.layers))
    found = []
    for by, groups in (("layer", part.layers), ("operator", part.operators)):
        for name, nodes in groups.items():
            mean = part.mean_cosine(everything - set(nodes))
            found.append(Cost(tower=tower, by=by, name=name, nodes=len(nodes), cost=max(0.0, 1 - mean)))
    return found


@contextmanager
def _opened(
    artifact: Artifact, tower: Tower, contract: Contract, precision: str, how: _How
) -> Iterator[tuple[Quantizable, Calibration]]:
    """A tower calibrated and ready, in a folder that goes afterwards."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # onnxruntime's quantiser tells its own workings there
    try:
        with tempfile.TemporaryDirectory(prefix="lpcvc_zoo_") as name:
            inputs, calibration = calibration_inputs(contract, tower, how.pool, how.samples, how.seed)
            path, folder = artifact.path(tower), Path(name)
            try:
                part = Quantizable(path, tower, contract, precision, inputs, folder, how.engine)
                yield part, calibration
            except ExportError:
                raise
            except Exception as error:  # quantisers raise anything
                raise ExportError(
                    f"The {tower} tower can't be quantised: {type(error).__name__}: {error}"
                ) from error
    finally:
        logger.setLevel(level)
