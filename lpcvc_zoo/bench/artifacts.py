"""Cells of artifacts that are made already: adopted ones, and folders made by export."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NoReturn

from lpcvc_zoo.bench.cut import TextCut
from lpcvc_zoo.bench.plan import UNTRAINED, Cell
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.adopt import FAMILY
from lpcvc_zoo.exporting.artifact import Artifact, Manifest
from lpcvc_zoo.exporting.precision import FLOAT
from lpcvc_zoo.registry import get_entry
from lpcvc_zoo.targets.base import Target

log = logging.getLogger(__name__)
AIMET = "aimet"  # the precision that encodings made by AIMET ask for


def artifact_cells(
    artifacts: Iterable[Artifact],
    targets: Sequence[Target],
    *,
    dataset: str | None = None,
    evaluate_untrained: bool = False,
) -> list[Cell]:
    """Cells of these, in their order; ``dataset`` as in ``plan``. Half a pair is only measured."""
    cells: list[Cell] = []
    for artifact in artifacts:
        manifest = artifact.manifest
        warn_of_ignored_encodings(artifact, targets)
        weights = manifest.weights.partition("@")[0]
        scored = manifest.towers == TOWERS and (evaluate_untrained or weights != UNTRAINED)
        cells += [
            Cell(
                entry=_entry(manifest),
                weights=weights,
                contract=manifest.contract,
                target=target,
                export_id=f"{manifest.contract} {manifest.hashes}",
                precision=precision,
                cut=TextCut(manifest.text_length, manifest.text_depth),
                dataset=dataset if scored else None,
                folder=artifact.folder.resolve(),
            )
            for target in targets
            if (precision := _precision(manifest, target)) is not None
        ]
    return cells


def _precision(manifest: Manifest, target: Target) -> str | None:
    """What a target makes of an artifact; None where it would quantise it a second time."""
    own: str = getattr(target, "precision", FLOAT)
    if own != FLOAT:
        return own if manifest.precision == FLOAT else None
    return AIMET if _encoded(manifest, target) else manifest.precision


def warn_of_ignored_encodings(artifact: Artifact, targets: Iterable[Target]) -> None:
    """Log, once a file, which targets run a tower as floats that AIMET's encodings say how to quantise."""
    deaf = sorted({target.name for target in targets if not _takes_encodings(target)})
    for tower in artifact.manifest.towers if deaf else ():
        if kept := artifact.manifest.tower(tower).encodings:
            log.warning(
                "%s is ignored by %s: the %s tower runs there as the floats that its file holds. Expected "
                "QDQ ONNX, or a target that quantises by encodings, such as aihub.",
                artifact.folder / kept.file, " and ".join(deaf), tower,
            )  # fmt: skip


def _encoded(manifest: Manifest, target: Target) -> bool:
    """Whether the target quantises by encodings beside the towers; one that doesn't runs them as floats."""
    has_encodings = any(manifest.tower(tower).encodings for tower in manifest.towers)
    return has_encodings and _takes_encodings(target)


def _takes_encodings(target: Target) -> bool:
    takes: bool = getattr(target, "takes_encodings", False)
    return takes


def _entry(manifest: Manifest) -> Entry:
    """The registered entry, or for an adopted model one that holds what its manifest knows."""
    if manifest.family != FAMILY:
        return get_entry(manifest.entry)
    return Entry(
        name=manifest.entry,
        family=manifest.family,
        make=_made_already,
        image_size=get_contract(manifest.contract).image.height,
        embed_dim=manifest.embed_dim,
        licence="its owner's",
        paper="",
    )


def _made_already() -> NoReturn:
    raise ExportError("An adopted model has ONNX files only: it can't be built in torch.")
