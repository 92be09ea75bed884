"""Exports kept by content: the same entry, weights, contract, options, code and tools export once."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lpcvc_zoo import registry
from lpcvc_zoo.contract import Contract, get_contract
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import Artifact, load_artifact
from lpcvc_zoo.exporting.calibrate import Pool
from lpcvc_zoo.exporting.onnx import OPSET, export, export_module, parity_inputs, tool_versions
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.exporting.quantize import quantize
from lpcvc_zoo.exporting.rewrites import NONE, resolve
from lpcvc_zoo.files import cache_dir, folder_written_whole, settle, sha256_of
from lpcvc_zoo.registry import BuildOptions
from lpcvc_zoo.weights.identity import identity_of

if TYPE_CHECKING:
    from lpcvc_zoo.entry import Preprocessing

log = logging.getLogger(__name__)


def cached_export(
    name: str,
    *,
    rewrites: str | Sequence[str] = NONE,
    precision: str = FLOAT,
    pool: Pool | None = None,
    force: bool = False,
    **options: Unpack[BuildOptions],
) -> Artifact:
    """The export of ``build(name, **options)`` with these rewrites in this precision, made once.

    ``pool``: what a quantised one is calibrated on, as in ``quantize``. A cached file that is damaged is
    exported again. Raises what ``build`` and ``export`` raise; an export that failed its parity gate stays
    beside the cache as ``<key>.rejected``.
    """
    folder = _exports() / export_key(name, rewrites=rewrites, precision=precision, pool=pool, **options)
    if folder.is_dir() and not force:
        try:
            return load_artifact(folder)
        except ExportError as error:
            log.warning("Cached export is damaged and will be made again: %s", error)
    if canonical(precision) != FLOAT:
        whole = cached_export(name, rewrites=rewrites, force=force, **options)
        return _made_whole(folder, lambda temporary: quantize(whole, temporary, precision, pool=pool))
    fused = options.get("fuse", True)
    return _made_whole(
        folder,
        lambda temporary: export(registry.build(name, **options), temporary, rewrites=rewrites, fused=fused),
    )


def export_key(
    name: str,
    *,
    rewrites: str | Sequence[str] = NONE,
    precision: str = FLOAT,
    pool: Pool | None = None,
    **options: Unpack[BuildOptions],
) -> str:
    """Name and hash of everything that shapes an export; needs no torch and builds nothing.

    A published checkpoint counts by its record, a file by its content.
    """
    entry = registry.get_entry(name)
    contract = options.get("contract", "lpcvc2026")
    resolved = contract if isinstance(contract, Contract) else get_contract(contract)
    choice = registry.chosen_weights(name, options.get("pretrained", False))
    make = entry.make
    while isinstance(make, partial):
        make = make.func
    family_file = inspect.getsourcefile(make)
    image_size = options.get("image_size")
    identity = {
        "entry": entry.model_dump(mode="json"),
        "weights": identity_of(entry, choice),
        "contract": resolved.model_dump(mode="json"),
        "fuse": options.get("fuse", True),
        "image_size": entry.image_size if image_size is None else image_size,
        "text_length": options.get("text_length"),
        "text_depth": options.get("text_depth"),
        "rewrites": resolve(rewrites),
        "precision": canonical(precision),
        "calibration": pool.fingerprint if pool and canonical(precision) != FLOAT else "",
        "opset": OPSET,
        "versions": tool_versions(),
        "code": _own_code(),
        "family_code": sha256_of(Path(family_file)) if family_file else None,
    }
    return f"{entry.name}-{resolved.name}-{_digest(identity)}"


def cached_preprocessing(contract: Contract, preprocessing: Preprocessing, image_size: int) -> Path:
    """One ONNX file with the in-graph image preprocessing alone, to be measured by itself."""
    from lpcvc_zoo.ingraph import ImageAdapter

    identity = {
        "contract": contract.model_dump(mode="json"),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "versions": tool_versions(),
        "code": _own_code(),
    }
    path = _exports() / f"preprocessing-{contract.name}-{image_size}-{_digest(identity)}.onnx"
    if not path.is_file():
        adapter = ImageAdapter(contract.image, preprocessing, image_size).eval()
        example = parity_inputs(contract, "image")[0]
        export_module(adapter, example, contract.image.name, "pixels", path)
    return path


def _exports() -> Path:
    return cache_dir() / "exports"


def _made_whole(folder: Path, make: Callable[[Path], Artifact]) -> Artifact:
    """Make into a temporary folder that takes ``folder``'s place once it is whole."""
    with folder_written_whole(folder) as temporary:
        try:
            make(temporary)
        except ExportError:
            settle(temporary, folder.with_name(f"{folder.name}.rejected"))
            raise
    return load_artifact(folder)


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _own_code() -> str:
    """Hash of this package's code that shapes a graph, so that editing it never serves a stale export."""
    package = Path(__file__).parent.parent
    shaping = [package / name for name in ("ingraph.py", "model.py", "fuse.py", "registry.py", "sessions.py")]
    for room in (package / "backbones", package / "exporting"):
        shaping += sorted(room.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in shaping)).hexdigest()
