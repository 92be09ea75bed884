"""A compiled tower on disk: the context binary, what was read of the compiler's schematic, and its record."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.files import cache_dir, folder_written_whole, sha256_of, write_text
from lpcvc_zoo.targets.base import OperatorTime, Tower, Traffic
from lpcvc_zoo.targets.qnn._worker import CONTEXT
from lpcvc_zoo.targets.qnn.arithmetic import arithmetic_of
from lpcvc_zoo.targets.qnn.child import Child
from lpcvc_zoo.targets.qnn.devices import Device
from lpcvc_zoo.targets.qnn.schematic import SchematicError, read_traffic

log = logging.getLogger(__name__)

RECORD = "compiled.json"
BINARY = "context_qnn.bin"
# Of what is kept; a new number leaves what older versions made aside. An estimate that could not be read is
# kept as such: raise this where schematic.py learns another format.
FORM = 1
MOST_SHOWN = 12  # nodes and sentences in an error's message; a Verdict has all

_DTYPES = {"float": "float32", "double": "float64"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeVerdict(_Record):
    """One node of the graph, as ONNX Runtime has simplified it, and whether the NPU takes it."""

    name: str
    type: str
    accepted: bool


class Verdict(_Record):
    """What the compiler says of one tower: node by node, and in its own words.

    ``error`` is None where the whole tower compiles for the NPU. Where it does not, no node may be refused
    by itself: some reasons show only when the graph is put together.
    """

    device: str
    nodes: tuple[NodeVerdict, ...]
    error: str | None
    words: tuple[str, ...]

    @property
    def refused(self) -> tuple[NodeVerdict, ...]:
        return tuple(node for node in self.nodes if not node.accepted)


class Build(_Record):
    """A compiled tower, as its ``RECORD`` says. ``inputs``: compiled shape and dtype of each.

    ``traffic`` is None where the schematic could not be read; ``traffic_problem`` then says why.
    ``arithmetic``: what a quantised tower computes how; None for any other, and in builds older than this.
    """

    source_sha256: str
    device: str
    verdict: Verdict
    inputs: dict[str, tuple[tuple[int, ...], str]]
    files: dict[Literal["context.onnx", "context_qnn.bin"], str]  # sha256 of each
    traffic: Traffic | None
    traffic_problem: str | None
    arithmetic: tuple[OperatorTime, ...] | None = None


def build_folder(source_sha256: str, tower: Tower, device: Device, versions: dict[str, str]) -> Path:
    """Where a compiled tower is kept: named by everything that shapes it."""
    identity = [FORM, source_sha256, device.soc_model, device.htp_arch, sorted(versions.items())]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return cache_dir() / "qnn" / f"{tower}-v{device.htp_arch}-{digest}"


def read_build(folder: Path) -> Build | None:
    """The build in a folder; None where there is none, or where a file of it is damaged."""
    try:
        build = Build.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
        whole = all(sha256_of(folder / name) == sha256 for name, sha256 in build.files.items())
    except FileNotFoundError:
        return None
    except ValueError:  # pydantic's, or that it is no text
        whole = False
    if not whole:
        log.warning("%s is damaged and will be made again.", folder)
        return None
    return build


def make_build(path: Path, source_sha256: str, device: Device, folder: Path, limit_s: float) -> Build:
    """Compile ``path`` into ``folder``, whole or not at all; TargetError says what the compiler refuses."""
    with folder_written_whole(folder) as temporary:
        verdict, inputs = _compile(path, device, temporary, limit_s)
        if verdict.error is not None:
            raise TargetError(_refusal(path, verdict, inputs))
        traffic, problem = _traffic(temporary)
        build = Build(
            source_sha256=source_sha256,
            device=device.name,
            verdict=verdict,
            inputs={name: (tuple(shape), _dtype(kind)) for name, (shape, kind) in inputs.items()},
            files={CONTEXT: sha256_of(temporary / CONTEXT), BINARY: sha256_of(temporary / BINARY)},
            traffic=traffic,
            traffic_problem=problem,
            arithmetic=arithmetic_of(path),
        )
        for other in temporary.iterdir():  # schematics take several times the binary's space
            if other.name not in build.files:
                other.unlink()
        write_text(temporary / RECORD, build.model_dump_json(indent=1))
    return build


def judge(path: Path, device: Device, folder: Path, limit_s: float) -> Verdict:
    """The compiler's verdict on a file, whatever it is; ``folder`` takes what it writes."""
    return _compile(path, device, folder, limit_s)[0]


def _compile(
    path: Path, device: Device, folder: Path, limit_s: float
) -> tuple[Verdict, dict[str, tuple[list[Any], str]]]:
    """Compile strictly; where that fails, place the nodes with the CPU allowed, to see which need it."""
    chip = {"soc_model": device.soc_model, "htp_arch": device.htp_arch}
    source = str(path.resolve())
    try:
        with Child() as child:
            answer = child.ask(limit_s, what="compile", path=source, folder=str(folder), **chip)
            words = child.words()
        if error := answer.get("error"):
            with Child() as child:
                answer = child.ask(limit_s, what="place", path=source, **chip)
                words = tuple(dict.fromkeys(words + child.words()))
    except TargetError as died:
        raise TargetError(f"{path}: compiling for {device.name}: {died}") from None
    verdict = Verdict(
        device=device.name,
        nodes=tuple(
            NodeVerdict(name=name, type=kind, accepted=accepted)
            for name, kind, accepted in answer.get("nodes", ())
        ),
        error=error,
        words=words,
    )
    return verdict, answer.get("inputs", {})


def _refusal(path: Path, verdict: Verdict, inputs: dict[str, tuple[list[Any], str]]) -> str:
    refused = [f"{node.name} ({node.type})" for node in verdict.refused]
    if refused:
        shown = ", ".join(refused[:MOST_SHOWN]) + (", ..." if len(refused) > MOST_SHOWN else "")
        what = f"refuses {len(refused)} of {len(verdict.nodes)} nodes: {shown}."
    else:
        what = f"can't compile it: {verdict.error}"
    said = [f"{path}: the compiler for {verdict.device} {what}"]
    if verdict.words:
        said.append("Its own words: " + " | ".join(verdict.words[:MOST_SHOWN]))
    dynamic = [
        name for name, (shape, _) in inputs.items() if not all(isinstance(size, int) for size in shape)
    ]
    if dynamic:
        said.append(f"Inputs of dynamic shape: {', '.join(dynamic)}; expected static shapes. Export it so.")
    return " ".join(said)


def _traffic(folder: Path) -> tuple[Traffic | None, str | None]:
    """The estimate from the one schematic in a folder, or why there is none; nothing else depends on it."""
    found = list(folder.glob("*_schematic.bin"))
    if len(found) != 1:
        problem = f"expected one schematic, got {len(found)}"
    else:
        try:
            with found[0].open(encoding="utf-8", errors="replace") as lines:
                return read_traffic(lines), None
        except SchematicError as error:
            problem = str(error)
    return None, problem


def _dtype(onnx_type: str) -> str:
    """ "tensor(float)" -> "float32", "tensor(int32)" -> "int32", and so on."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(name, name)
