"""Rewrites for a phone's NPU, by name: each changes a tower in one way and must leave its embeddings alone.

Some rewrite torch modules before the export, the others the exported graph. What the zoo's models do anyway
is no rewrite, and done with "none" too: folded branches and BatchNorm (``build(fuse=True)``), pooling at the
end-of-text token without ArgMax and Gather, static masks, int32 ids, the cut text tower
(``build(text_length=..., text_depth=...)``), a GELU's five nodes in the order that compilers know.
The manifest has the effect of folding, cutting and pooling beside those of rewrites (see ``prepared``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.errors import UnknownNameError

if TYPE_CHECKING:
    import onnx
    from torch import nn

NONE, NPU = "none", "npu"
# What people look for here, and where it is done instead.
_ELSEWHERE = {
    "fold": "Models are folded when they are built, unless with fuse=False (--no-fuse).",
    "cut_text": "The text is cut when a model is built: text_length=N (--text-length N).",
    "pool_at_eot": "All exports pool so, whatever their rewrites.",
}


@dataclass(frozen=True)
class Rewrite:
    """``module`` or ``graph`` changes a tower in place and returns in how many places.

    ``min_cosine``: the least agreement of embeddings before and after on real photos or captions that is
    accepted; None where they are meant to differ.
    """

    name: str
    what: str
    min_cosine: float | None
    module: Callable[[nn.Module], int] | None = None
    graph: Callable[[onnx.ModelProto], int] | None = None


def _late(module: str, function: str) -> Callable[[Any], int]:
    """A function of this room, imported when it is called: listing rewrites needs neither torch nor onnx."""

    def change(tower: Any) -> int:
        places: int = getattr(import_module(f"lpcvc_zoo.exporting.{module}"), function)(tower)
        return places

    return change


EXACT = 0.99999
_ALL = (
    Rewrite(
        "split_attention",
        "three projections instead of a packed one, 4-D products, the scale in the weights",
        EXACT,
        module=_late("attention", "split_attention"),
    ),
    Rewrite(
        "windows_4d",
        "attention in windows, cut out in four axes and for the attention alone",
        EXACT,
        module=_late("cascaded", "windows_4d"),
    ),
    Rewrite(
        "linear_attention",
        "linear attention as weighted means, without padding its values by ones, tokens last",
        EXACT,
        module=_late("modules", "linear_attention"),
    ),
    Rewrite(
        "cls_to_average",
        "average pooling instead of the class token: only for checkpoints trained so, judge by recall",
        None,
        module=_late("modules", "cls_to_average"),
    ),
    Rewrite("finite_masks", "masks of -50, not minus infinity", EXACT, graph=_late("graphs", "finite_masks")),
    Rewrite("int32_ids", "ids looked up without int64", EXACT, graph=_late("graphs", "int32_ids")),
    Rewrite(
        "early_pool",
        "the last block's MLP for the one token that is pooled",
        EXACT,
        graph=_late("pooling", "early_pool"),
    ),
    Rewrite("gelu_tanh", "exact GELU in its tanh form", 0.9999, graph=_late("graphs", "gelu_tanh")),
    Rewrite("gelu_sigmoid", "GELU as x sigmoid(1.702 x)", 0.99, graph=_late("graphs", "gelu_sigmoid")),
    Rewrite("simplify", "constants folded, no-ops dropped", EXACT, graph=_late("graphs", "simplify")),
)
REWRITES = {rewrite.name: rewrite for rewrite in _ALL}
# GELU stays exact: the compiler has it as one operator, and the tanh form was seen to move 1.5 times as much.
SETS: dict[str, tuple[str, ...]] = {
    NONE: (),
    NPU: ("split_attention", "windows_4d", "linear_attention", "finite_masks", "int32_ids", "simplify"),
}


def resolve(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Names in the order they are applied: modules first, then graphs, as listed in ``REWRITES``.

    ``chosen``: "none", "npu", names with commas between, or a sequence of any of these. UnknownNameError
    suggests the nearest.
    """
    parts = [chosen] if isinstance(chosen, str) else chosen
    names = [name.strip() for part in parts for name in part.split(",") if name.strip()]
    wanted: set[str] = set()
    for name in names:
        if name not in REWRITES and name not in SETS:
            raise UnknownNameError("rewrite", name, [*SETS, *REWRITES], _ELSEWHERE.get(name, ""))
        wanted.update(SETS.get(name, (name,)))
    return tuple(name for name in REWRITES if name in wanted)
