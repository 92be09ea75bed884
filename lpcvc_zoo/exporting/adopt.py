"""ONNX towers made elsewhere become an artifact like our own: put into the contract's form and described."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lpcvc_zoo.contract import TOWERS, Contract, Tower, get_contract
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.entry import NAME_PATTERN
from lpcvc_zoo.errors import ContractError, ExportError
from lpcvc_zoo.exporting.artifact import (
    FILES,
    MANIFEST,
    Artifact,
    Encodings,
    Manifest,
    TowerFile,
    check_folder,
    load_artifact,
)
from lpcvc_zoo.files import put_folder, sha256_of, write_text
from lpcvc_zoo.sessions import session_options

if TYPE_CHECKING:
    import onnx

    from lpcvc_zoo.contract import Array
    from lpcvc_zoo.exporting.rewire import Rewired

FAMILY = "adopted"
SAMPLES: dict[Tower, int] = {"image": 2, "text": 4}
SHORT = 12  # characters of a hash in ``weights``
_TWO_GB = 2**31 - 1


def adopt(
    image: str | Path | None,
    text: str | Path | None,
    out_dir: str | Path,
    *,
    contract: str | Contract = "lpcvc2026",
    name: str | None = None,
    encodings: Mapping[Tower, str | Path] | None = None,
    outputs: Mapping[Tower, str] | None = None,
) -> Artifact:
    """Make an artifact of ONNX files that something else exported; one tower may be None.

    What can be put into the contract's form without changing what is computed is: names; the ids and mask
    taken apart; int32 widened to int64; open sizes fixed; channels put last; sizes of 1 left out or added; an
    embedding divided by its length, as cosine similarity does anyway. Everything else is a ContractError that
    lists what was expected and what came. ``outputs`` names the embedding where a graph has several outputs.
    Weights in other files are taken into the one file.

    Pixels arrive as the contract gives them: scale, mean and std must be inside the graph, and whether they
    are can't be seen from it. ``encodings``: AIMET's, kept beside the tower, its names changed with the
    graph's. ``name``: default, the folder's. ExportError where a file can't be read, is above 2 GB, or does
    not run in ONNX Runtime. The folder appears whole or not at all; an earlier adoption of the
    same towers there is replaced.
    """
    started = time.monotonic()
    out_dir, given = Path(out_dir), {"image": image, "text": text}
    resolved = contract if isinstance(contract, Contract) else get_contract(contract)
    files: dict[Tower, Path] = {tower: Path(path) for tower in TOWERS if (path := given[tower]) is not None}
    if not files:
        raise ExportError("There is nothing to adopt: expected the ONNX file of an image or a text tower.")
    name = name or re.sub(r"[^a-z0-9_\-]+", "_", out_dir.resolve().name.lower()).strip("_-")
    if not re.fullmatch(NAME_PATTERN, name):
        raise ExportError(f"The name {name!r} won't do: expected lower-case letters, digits, _ and -.")
    check_folder(out_dir.parent)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}."))
    try:
        made: dict[Tower, TowerFile] = {}
        opsets: list[int] = []
        sources: dict[Tower, list[Path]] = {}
        for tower, path in files.items():
            model, beside = _read(path)
            sources[tower] = [path, *beside]
            rewired, file = _adopt_tower(model, path, tower, resolved, temporary, (outputs or {}).get(tower))
            if (given_encodings := (encodings or {}).get(tower)) is not None:
                kept = _keep_encodings(Path(given_encodings), temporary / file.file, rewired.renamed)
                file = file.model_copy(update={"encodings": kept})
            made[tower] = file
            opsets.append(rewired.opset)
        dims = {tower: file.output_shape[1] for tower, file in made.items()}
        if len(set(dims.values())) > 1:
            raise ContractError("embedding", "one size for both towers", f"{dims}", "They are not a pair.")
        manifest = Manifest(
            entry=name,
            family=FAMILY,
            weights=f"{FAMILY}@{_identity(sources)}",
            contract=resolved.name,
            embed_dim=next(iter(dims.values())),
            opset=max(opsets),
            image=made.get("image"),
            text=made.get("text"),
            versions=_versions(),
            seconds=round(time.monotonic() - started, 2),
        )
        write_text(temporary / MANIFEST, manifest.model_dump_json(indent=2))
        put_folder(temporary, out_dir)
    except OSError as error:
        raise ExportError(f"{out_dir} can't be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_artifact(out_dir)


def tower_of(path: str | Path) -> Tower:
    """Which tower an ONNX file is, told from its inputs: numbers in four dimensions are an image."""
    model, _ = _read(Path(path), weights=False)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return "image" if any(len(value.type.tensor_type.shape.dim) == 4 for value in inputs) else "text"


def _adopt_tower(
    model: onnx.ModelProto, path: Path, tower: Tower, contract: Contract, folder: Path, output: str | None
) -> tuple[Rewired, TowerFile]:
    import onnx

    from lpcvc_zoo.exporting.rewire import Rewired

    samples = _samples(contract, tower)
    rewired = Rewired(model, tower, contract)
    rewired.fit_input()
    rewired.choose_output(output)
    del rewired.model.graph.value_info[:]  # those of open sizes would contradict the fixed ones
    file = folder / FILES[tower]
    _save(rewired.model, file)
    found = _run(file, samples)
    lengths = np.linalg.norm(found.reshape(len(samples), -1).astype(np.float64), axis=1)
    off = float(np.abs(lengths - 1).max())
    normalise = np.isfinite(off) and off > contract.embedding.unit_length_tolerance
    rewired.fit_output(found.shape[1:], str(found.dtype), normalise=bool(normalise))
    proto = onnx.shape_inference.infer_shapes(rewired.model)
    _save(proto, file)
    _check(_run(file, samples)[:, 0], tower, contract, path)
    spec = contract.image if tower == "image" else contract.text
    return rewired, TowerFile(
        file=file.name,
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        nodes=len(proto.graph.node),
        input_name=spec.name,
        input_shape=spec.shape(1),
        input_dtype=spec.dtype,
        output_name=proto.graph.output[0].name,
        output_shape=(1, found[0].size),
        output_dtype=contract.embedding.dtype,
        changes=tuple(rewired.changes),
    )


def _read(path: Path, *, weights: bool = True) -> tuple[onnx.ModelProto, list[Path]]:
    """An ONNX file with all of its weights in memory, and the other files that held some of them.

    ExportError where there are 2 GB of them or more, or some can't be read.
    """
    import onnx

    from lpcvc_zoo.exporting.lint.weights import external_files, read_weights

    if not path.is_file():
        raise ExportError(f"{path} is missing: expected an ONNX file.")
    try:
        model = onnx.load(path, load_external_data=False)
        names = external_files(model)
    except Exception as error:  # protobuf's and onnx's exceptions have no common base
        raise ExportError(f"{path} can't be read as ONNX: {type(error).__name__}: {error}") from None
    if not model.graph.node:
        raise ExportError(f"{path} can't be read as ONNX: its graph is empty.")
    beside = [path.parent / name for name in names]
    missing = [str(file) for file in beside if not file.is_file()]
    if weights and missing:
        raise ExportError(f"{path} keeps weights in files that are missing: {', '.join(missing)}.")
    size = sum(file.stat().st_size for file in (path, *beside) if file.is_file())
    if size >= _TWO_GB:
        raise ExportError(f"{path} holds {size / 1e9:.1f} GB; one ONNX file must stay below 2 GB.")
    if weights and (unread := read_weights(model, path.parent, names)):
        raise ExportError(f"{path} keeps weights in other files that can't be read: {'; '.join(unread)}.")
    return model, beside


def _save(model: onnx.ModelProto, file: Path) -> None:
    file.write_bytes(model.SerializeToString())


def _samples(contract: Contract, tower: Tower) -> list[Array]:
    if tower == "image":
        return [contract.prepare_image(path) for path in sample_photos(SAMPLES[tower])]
    return [contract.prepare_text(caption) for caption in sample_captions(SAMPLES[tower])]


def _run(file: Path, samples: list[Array]) -> Array:
    """What the graph gives for each sample, stacked along a new first axis."""
    import onnxruntime

    options = session_options()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return np.stack([session.run(None, {name: sample})[0] for sample in samples])
    except Exception as error:  # the runtime's own exceptions have no common base
        raise ExportError(f"{file.name} does not run in ONNX Runtime: {error}") from None


def _check(embeddings: Array, tower: Tower, contract: Contract, path: Path) -> None:
    try:
        contract.check_embedding(embeddings)
    except ContractError as error:
        raise ContractError(f"{path}, {error.field}", error.expected, error.got) from None
    if np.ptp(embeddings, axis=0).max() == 0:
        raise ContractError(
            f"{path}, embedding", f"different ones for different {tower}s", "the same for all",
            f"Is it the {tower} tower? Its input's range may also be another than the contract's.",
        )  # fmt: skip


def _keep_encodings(path: Path, tower_file: Path, renamed: Mapping[str, str]) -> Encodings:
    """Copy AIMET's encodings beside a tower, with the graph's new names for what was renamed."""
    kinds = ("activation_encodings", "param_encodings")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        for kind in kinds:
            part = content[kind]
            if isinstance(part, dict):  # up to version 0.6.1 by name, from 1.0.0 a list of records with names
                content[kind] = {renamed.get(name, name): value for name, value in part.items()}
            else:
                content[kind] = [{**item, "name": renamed.get(item["name"], item["name"])} for item in part]
    except OSError as error:
        said = f"expected AIMET's encodings of {tower_file.name}"
        raise ExportError(f"{path} can't be read: {error.strerror}; {said}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{path} is not an AIMET encodings file: expected JSON with {' and '.join(kinds)}, each a record "
            f"by name or a list of records with a name ({type(error).__name__}: {error})."
        ) from None
    kept = tower_file.with_suffix(".encodings")
    write_text(kept, json.dumps(content, indent=1))
    return Encodings(file=kept.name, sha256=sha256_of(kept))


def _identity(files: Mapping[Tower, Sequence[Path]]) -> str:
    """A hash of the files as they were given, those that hold weights alone included."""
    digest = hashlib.sha256()
    for tower, paths in files.items():
        digest.update(f"{tower} {' '.join(map(sha256_of, paths))} ".encode())
    return digest.hexdigest()[:SHORT]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {tool: version(tool) for tool in ("onnx", "onnxruntime", "lpcvc-zoo")}
