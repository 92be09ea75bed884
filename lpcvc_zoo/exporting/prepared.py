"""What was done to a tower before its export, measured as rewrites are: folding, cutting, pooling.

None of it can be left out of an export any more, so what it was before is made again where that is cheap: the
text tower at full length in torch, and its graph pooled by ArgMax and Gather. The unfolded tower is gone when
the exporter comes, and building it twice would cost more than it tells: ``fuse`` measures when it folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.exporting.artifact import Prepared
from lpcvc_zoo.exporting.parity import agreement, run_onnx, run_torch
from lpcvc_zoo.exporting.rewrites import EXACT

if TYPE_CHECKING:
    import onnx

    from lpcvc_zoo.contract import Array, Tower
    from lpcvc_zoo.exporting.parity import Embeddings
    from lpcvc_zoo.model import DualEncoder


def prepared(
    model: DualEncoder,
    tower: Tower,
    inputs: Sequence[Array],
    in_torch: Embeddings,
    proto: onnx.ModelProto,
    in_onnx: Embeddings,
) -> tuple[Prepared, ...]:
    """What was done to a tower; ``in_torch`` and ``in_onnx`` are the embeddings it has now, of ``inputs``.

    ExportError where folding or pooling changed them. Cutting may: it is a trade, unless the tower is causal
    and no text is longer.
    """
    steps = [_fold(model, tower)]
    if tower == "text":
        steps += [_cut_text(model, inputs, in_torch), _pool_at_eot(proto, inputs, in_onnx)]
    return tuple(step for step in steps if step is not None)


def _fold(model: DualEncoder, tower: Tower) -> Prepared | None:
    done = model.foldings.get(tower)
    if done is None:
        return None
    return _guarded(
        Prepared(
            step="fold",
            places=done.norms,
            counted="operators",
            before=done.operators_before,
            after=done.operators_after,
            min_cosine=done.cosine,
        ),
        "Build this model with fuse=False (--no-fuse).",
    )


def _cut_text(model: DualEncoder, inputs: Sequence[Array], cut: Embeddings) -> Prepared | None:
    from lpcvc_zoo.ingraph import TextAdapter
    from lpcvc_zoo.model import TextEncoder

    if model.text_length == model.full_text_length:
        return None
    adapter = TextAdapter(model.contract.text, model.entry.text, model.full_text_length)
    whole = run_torch(TextEncoder(adapter, model.text_tower).eval(), inputs)
    return Prepared(
        step="cut_text",
        places=1,
        counted="tokens",
        before=model.full_text_length,
        after=model.text_length,
        min_cosine=agreement(whole, cut).min_cosine,
    )


def _pool_at_eot(proto: onnx.ModelProto, inputs: Sequence[Array], pooled: Embeddings) -> Prepared | None:
    from lpcvc_zoo.exporting.graphs import gather_at_eot

    gathered = type(proto)()
    gathered.CopyFrom(proto)
    places = gather_at_eot(gathered)
    if not places:
        return None
    return _guarded(
        Prepared(
            step="pool_at_eot",
            places=places,
            counted="nodes",
            before=len(gathered.graph.node),
            after=len(proto.graph.node),
            min_cosine=agreement(run_onnx(gathered.SerializeToString(), inputs), pooled).min_cosine,
        ),
        "The end-of-text id must stand once in a row, and be the largest: pads need another one.",
    )


def _guarded(done: Prepared, advice: str) -> Prepared:
    if not done.min_cosine >= EXACT:  # a NaN is not
        raise ExportError(
            f"{done.step} changed the embeddings before the export: worst cosine {done.min_cosine:.6f}, "
            f"at least {EXACT} is expected. {advice}"
        )
    return done
