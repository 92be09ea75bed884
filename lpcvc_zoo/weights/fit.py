"""A converted checkpoint held against the towers it is for: every name, shape and kind accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 5  # of each kind of problem
COUNTER = "num_batches_tracked"


def fit(
    state: Mapping[str, Tensor], wanted: Shapes, *, what: str, integers: Collection[str] = ()
) -> dict[str, Tensor]:
    """The state dict that loads strictly into towers of the shapes ``wanted``, in fp32 but for ``integers``.

    Two things are put right, neither of which changes what is computed: a counter of BatchNorm's that
    is missing or was averaged to a float (it is not read in evaluation), and ``logit_scale`` given as one
    number in a list. WeightsError lists all else that is missing, unexpected, misshapen or of another kind:
    torch would copy integers into weights, quantised without their scales.
    """
    import torch

    ready: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "logit_scale" and tensor.numel() == 1:
            tensor = tensor.reshape(())
        if name.endswith(COUNTER):
            ready[name] = tensor.long()
        else:
            ready[name] = tensor.float() if tensor.is_floating_point() else tensor
    for name in wanted:
        if name.endswith(COUNTER):
            ready.setdefault(name, torch.zeros((), dtype=torch.int64))
    have = {name: tuple(tensor.shape) for name, tensor in ready.items()}
    missing = [name for name in wanted if name not in have]
    unexpected = [name for name in have if name not in wanted]
    misshapen = [name for name in wanted if name in have and have[name] != wanted[name]]
    mistaken = {
        name: f"{tensor.dtype}, not {'integers' if name in integers else 'floats'}".removeprefix("torch.")
        for name, tensor in ready.items()
        if name in wanted
        and not name.endswith(COUNTER)
        and (tensor.is_complex() or tensor.is_floating_point() == (name in integers))
    }
    if missing or unexpected or misshapen or mistaken:
        raise WeightsError(_complaint(have, wanted, missing, unexpected, misshapen, mistaken, what))
    return ready


def _complaint(
    have: Shapes,
    wanted: Shapes,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshapen: Sequence[str],
    mistaken: Mapping[str, str],
    what: str,
) -> str:
    problems = {
        "missing": missing, "unexpected": unexpected, "misshapen": misshapen, "of another kind": mistaken,
    }  # fmt: skip
    summary = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items() if names)
    lines = [f"{what} does not fit: {summary} of {len(wanted)} tensors."]
    lines += _listed("missing", missing, wanted, "in the file", unexpected, have)
    lines += _listed("unexpected", unexpected, have, "wanted", missing, wanted)
    lines += [
        f"  misshapen: {name} {list(have[name])}, not {list(wanted[name])}" for name in misshapen[:SHOWN]
    ]
    lines += _rest("misshapen", misshapen)
    lines += [f"  of another kind: {name} {kinds}" for name, kinds in list(mistaken.items())[:SHOWN]]
    lines += _rest("of another kind", list(mistaken))
    if any(name.endswith("running_mean") for name in missing):
        lines.append(
            "  BatchNorm is missing: is this a copy for inference, with BatchNorm folded away (as in a model "
            "built with fuse=True)? Give the checkpoint it was made from."
        )
    elif misshapen and not missing and not unexpected:
        lines.append("  Same structure, other sizes: is this a checkpoint of another variant?")
    return "\n".join(lines)


def _listed(
    kind: str, names: Sequence[str], shapes: Shapes, where: str, others: Collection[str], other_shapes: Shapes
) -> list[str]:
    lines = []
    for name in names[:SHOWN]:
        near = _nearest(name, shapes[name], others, other_shapes)
        beside = f" (nearest {where}: {near} {list(other_shapes[near])})" if near else ""
        lines.append(f"  {kind}: {name} {list(shapes[name])}{beside}")
    return lines + _rest(kind, names)


def _nearest(name: str, shape: tuple[int, ...], others: Collection[str], shapes: Shapes) -> str | None:
    """The most similar name among those left over, of the same shape if there is one."""
    same = [other for other in others if shapes[other] == shape]
    for pool, cutoff in ((same, 0.5), (others, 0.8)):
        if found := difflib.get_close_matches(name, pool, n=1, cutoff=cutoff):
            return found[0]
    return None


def _rest(kind: str, names: Sequence[str]) -> list[str]:
    return [f"  {kind}: ... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
