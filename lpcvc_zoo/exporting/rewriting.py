"""Applying rewrites one after the other, each measured and held to its own bound."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import Effect, Parity
from lpcvc_zoo.exporting.parity import agreement, run_onnx, run_torch
from lpcvc_zoo.exporting.rewrites import REWRITES

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from lpcvc_zoo.contract import Array
    from lpcvc_zoo.exporting.parity import Embeddings


def rewritten(
    module: nn.Module,
    inputs: Sequence[Array],
    expected: Embeddings,
    exported: Callable[[nn.Module], onnx.ModelProto],
    names: Sequence[str],
) -> tuple[onnx.ModelProto, tuple[Effect, ...], Embeddings]:
    """The exported graph after these rewrites (in the order of ``resolve``), and what each one did.

    Also the embeddings that the rewritten module has in torch, for the graph to be held against: a rewrite
    may be meant to differ, its conversion may not. ``expected`` are the module's own embeddings of
    ``inputs``. ExportError names a rewrite that changes them more than it may. Each module rewrite that finds
    something costs an export, to count its nodes.
    """
    effects: list[Effect] = []
    proto: onnx.ModelProto | None = None
    reference = expected
    for rewrite in (REWRITES[name] for name in names):
        if rewrite.module is None:
            continue
        changed = copy.deepcopy(module)
        places = rewrite.module(changed)
        if not places:
            effects.append(Effect(rewrite=rewrite.name, places=0))
            continue
        before = len((proto or exported(module)).graph.node)
        got = run_torch(changed, inputs)
        parity = _guarded(rewrite.name, agreement(reference, got))
        module, reference, proto = changed, got, exported(changed)
        effects.append(_effect(rewrite.name, places, before, proto, parity))
    proto = proto or exported(module)
    in_torch = reference
    for rewrite in (REWRITES[name] for name in names):
        if rewrite.graph is None:
            continue
        before = len(proto.graph.node)
        places = rewrite.graph(proto)
        if not places:
            effects.append(Effect(rewrite=rewrite.name, places=0))
            continue
        got = run_onnx(proto.SerializeToString(), inputs)
        parity = _guarded(rewrite.name, agreement(reference, got))
        reference = got
        effects.append(_effect(rewrite.name, places, before, proto, parity))
    return proto, tuple(effects), in_torch


def _guarded(name: str, parity: Parity) -> Parity:
    bound = REWRITES[name].min_cosine
    if bound is not None and not parity.min_cosine >= bound:
        raise ExportError(
            f"The rewrite {name} changes the embeddings: worst cosine {parity.min_cosine:.6f} over "
            f"{parity.samples} inputs, at least {bound} is expected. Leave it out for this model."
        )
    return parity


def _effect(name: str, places: int, before: int, after: onnx.ModelProto, parity: Parity) -> Effect:
    return Effect(
        rewrite=name,
        places=places,
        nodes_before=before,
        nodes_after=len(after.graph.node),
        min_cosine=parity.min_cosine,
    )
