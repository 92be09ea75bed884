"""Two static ONNX towers from a model, each proven equal to torch on real photos and captions."""

from __future__ import annotations

import importlib.metadata
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lpcvc_zoo.contract import Contract, Tower
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import (
    FILES,
    MANIFEST,
    REJECTED,
    Artifact,
    Effect,
    Manifest,
    Parity,
    TowerFile,
    both_towers,
    check_folder,
)
from lpcvc_zoo.exporting.parity import agreement, run_onnx, run_torch
from lpcvc_zoo.exporting.prepared import prepared
from lpcvc_zoo.exporting.rewrites import NONE, REWRITES, resolve
from lpcvc_zoo.exporting.rewriting import rewritten
from lpcvc_zoo.files import sha256_of, write_text, written_whole

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from lpcvc_zoo.contract import Array
    from lpcvc_zoo.model import DualEncoder

OPSET = 18
MIN_COSINE = 0.9999
PARITY_PHOTOS = 6
PARITY_CAPTIONS = 12
_TWO_GB = 2**31 - 1
_TOOLS = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "open_clip_torch",
    "timm",
    "transformers",
    "lpcvc-zoo",
)


def export(
    model: DualEncoder, out_dir: str | Path, *, rewrites: str | Sequence[str] = NONE, fused: bool = True
) -> Artifact:
    """Write ``image_encoder.onnx``, ``text_encoder.onnx`` and ``manifest.json`` into ``out_dir``.

    Static shapes at batch 1, inputs and outputs named by the contract, opset 18, one file a tower. Both
    towers then run in ONNX Runtime on bundled photos and captions; where the worst cosine to torch, to the
    model as built and as rewritten, is below 0.9999 an ExportError names the tower, and the files stay for
    inspection (with a ``manifest.rejected.json``, which nothing loads). ``fused`` is only recorded.

    ``rewrites``: "none", "npu" or names (see ``rewrites.REWRITES``). ``model`` itself stays as it is; the
    manifest has each one's effect, and what was done before (``prepared``). One that changes the embeddings
    more than it may is an ExportError that names it; where one may cost some agreement, the bound on the
    whole export is lowered to its own.
    """
    started = time.monotonic()
    out_dir = Path(out_dir)
    check_folder(out_dir)
    contract, entry = model.contract, model.entry
    names = resolve(rewrites)
    model.eval()
    with both_towers(out_dir) as folder:
        image, image_problem = _export_tower(model, "image", folder / FILES["image"], names)
        text, text_problem = _export_tower(model, "text", folder / FILES["text"], names)
    manifest = Manifest(
        entry=entry.name,
        family=entry.family,
        weights=model.weights,
        contract=contract.name,
        rewrites=names,
        fused=fused,
        text_length=model.text_length,
        text_depth=model.text_depth,
        image_size=entry.image_size,
        embed_dim=entry.embed_dim,
        interpolation=model.preprocessing.interpolation,
        mean=model.preprocessing.mean,
        std=model.preprocessing.std,
        opset=OPSET,
        image=image,
        text=text,
        versions=tool_versions(),
        seconds=round(time.monotonic() - started, 2),
    )
    problems = [problem for problem in (image_problem, text_problem) if problem]
    write_text(out_dir / (REJECTED if problems else MANIFEST), manifest.model_dump_json(indent=2))
    if problems:
        raise ExportError(
            f"{entry.name} exported to {out_dir}, but ONNX Runtime and torch disagree "
            f"({'; '.join(problems)}). The files are kept; {REJECTED} has the details."
        )
    return Artifact(out_dir, manifest)


def least_cosine(effects: Sequence[Effect]) -> float:
    """The least cosine to torch that an export with these rewrites may have."""
    bounds = [REWRITES[effect.rewrite].min_cosine for effect in effects if effect.places]
    return min([MIN_COSINE, *(-1.0 if bound is None else bound for bound in bounds)])


def export_module(
    module: nn.Module, example: Array, input_name: str, output_name: str, path: Path
) -> onnx.ModelProto:
    """Export one module with one input and one output; checked, shape-inferred, written whole."""
    return write_checked(to_onnx(module, example, input_name, output_name, path.name), path)


def to_onnx(
    module: nn.Module, example: Array, input_name: str, output_name: str, what: str
) -> onnx.ModelProto:
    """One module with one input and one output as ONNX; ``what`` names it in errors."""
    import torch

    from lpcvc_zoo.exporting.graphs import drop_notes, fusable_gelu

    _check_size(module, what)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            external_data=False,
            optimize=True,
            verbose=False,
        )
        assert program is not None
        fusable_gelu(program.model)
    proto = program.model_proto
    drop_notes(proto)
    opset = next(item.version for item in proto.opset_import if item.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise ExportError(f"{what}: opset {OPSET} was asked for, the exporter left {opset}.")
    return proto


def _check_size(module: nn.Module, what: str) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size >= _TWO_GB:
        raise ExportError(f"{what} would hold {size / 1e9:.1f} GB; one ONNX file must stay below 2 GB.")


def write_checked(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Infer the shapes that are missing, check, and write whole; returns what was written."""
    import onnx

    known = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    if any(name not in known for node in proto.graph.node for name in node.output):
        # Only where the exporter left a shape open: on a large tower this takes as long as exporting.
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(proto)
    with written_whole(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return proto


def parity_inputs(contract: Contract, tower: Tower) -> list[Array]:
    """Bundled photos or captions as single contract inputs (batch 1)."""
    if tower == "image":
        return [contract.prepare_image(path) for path in sample_photos(PARITY_PHOTOS)]
    return [contract.prepare_text(caption) for caption in sample_captions(PARITY_CAPTIONS)]


def tool_versions() -> dict[str, str]:
    """The versions of everything that shapes an export."""
    return {tool: importlib.metadata.version(tool) for tool in _TOOLS}


def _export_tower(
    model: DualEncoder, tower: Tower, path: Path, rewrites: Sequence[str]
) -> tuple[TowerFile, str | None]:
    """The tower's record, and what is wrong where it computes something else than torch."""
    contract = model.contract
    module: nn.Module = model.image_encoder if tower == "image" else model.text_encoder
    input_name = contract.image.name if tower == "image" else contract.text.name
    output_name = contract.embedding.image_name if tower == "image" else contract.embedding.text_name
    _check_size(module, path.name)  # before torch runs it
    inputs = parity_inputs(contract, tower)
    expected = run_torch(module, inputs)

    def exported(part: nn.Module) -> onnx.ModelProto:
        return to_onnx(part, inputs[0], input_name, output_name, path.name)

    try:
        proto, effects, in_torch = rewritten(module, inputs, expected, exported, rewrites)
        proto = write_checked(proto, path)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"The {tower} tower does not export: {type(error).__name__}: {error}") from error
    graph_input, graph_output = _static(proto.graph.input[0]), _static(proto.graph.output[0])
    got = run_onnx(str(path), inputs)
    parity = agreement(expected, got)
    of_graph = [effect for effect in effects if REWRITES[effect.rewrite].graph]
    problem = _disagreement("torch", parity, effects)
    problem = problem or _disagreement("the rewritten model in torch", agreement(in_torch, got), of_graph)
    # Where something is wrong already, what was done before is not what to blame.
    done = () if problem else prepared(model, tower, inputs, expected, proto, got)
    tower_file = TowerFile(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        nodes=len(proto.graph.node),
        input_name=input_name,
        input_shape=graph_input[0],
        input_dtype=graph_input[1],
        output_name=output_name,
        output_shape=graph_output[0],
        output_dtype=graph_output[1],
        parity=parity,
        prepared=done,
        effects=effects,
    )
    return tower_file, f"{path.name}: {problem}" if problem else None


def _disagreement(what: str, parity: Parity, effects: Sequence[Effect]) -> str | None:
    least = least_cosine(effects)
    if parity.min_cosine >= least:  # a NaN is not
        return None
    return f"worst cosine to {what} {parity}, at least {least} is expected"


def _static(value: onnx.ValueInfoProto) -> tuple[tuple[int, ...], str]:
    """Shape and numpy dtype of a graph input or output; ExportError where a dimension is dynamic."""
    import onnx

    tensor = value.type.tensor_type
    if any(dim.HasField("dim_param") or not dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise ExportError(f"{value.name} has a dynamic dimension; NPUs need static shapes.")
    shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
    return shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters log and warn about their own workings; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
