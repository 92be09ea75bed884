"""Tensors out of a checkpoint file from anywhere, without running anything that is in it."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.weights.content import Kind, kind_of
from lpcvc_zoo.weights.torchscript import read_archive

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

# Where training loops keep the state dict, first choice first. As in timm, the averaged copy (EMA) wins over
# the raw one: it is the one that papers evaluate.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module", "model_state_dict")
MAX_WRAPPERS = 4  # one inside the other; a pickled dict may even hold itself
FACTS = "lpcvc_zoo"  # the key of our own safetensors metadata
PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The checkpoint's tensors on the CPU by name, in the file's own names, dtypes and order.

    Reads ``.safetensors``, files of ``torch.save`` (with ``weights_only=True``) and TorchScript archives
    (as archives), told apart by their content, not their suffix. Wrappers around the state dict are taken
    off (the EMA copy is preferred where there is one), ``module.`` and ``_orig_mod.`` are stripped where all
    names have them, and what is not a tensor (epoch, optimizer, arguments) is left out. Tensors may be
    copy-on-write maps of the file: don't truncate it while they live.

    WeightsError for anything else, and for a pickle that asks for more than tensors. No code of a file runs.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "safetensors":
        tensors = _read_safetensors(path)
    elif kind == "torchscript":
        tensors = read_archive(path)
    else:
        tensors = _unwrapped(path, _load_torch(path, kind))
    if not tensors:
        raise WeightsError(f"{path} is a {kind} file that holds no tensor.")
    _refuse_odd(path, tensors)
    return _stripped(tensors)


def _refuse_odd(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """WeightsError for tensors without values of their own in rows and columns, which nothing can load."""
    import torch

    odd = {
        name: "without values (meta)" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse"
        for name, tensor in tensors.items()
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided
    }
    if odd:
        shown = ", ".join(f"{name} ({how})" for name, how in list(odd.items())[:5])
        raise WeightsError(
            f"{path} has {len(odd)} of {len(tensors)} tensors that are not plain: {shown}. Save them dense, "
            "in floating point."
        )


def read_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint of ``lpcvc-zoo train`` says of itself; empty for all other files.

    WeightsError where that can't be read.
    """
    from safetensors import SafetensorError, safe_open

    if kind_of(path) != "safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(FACTS, "{}")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    try:
        facts: dict[str, Any] = dict(json.loads(written))
    except (ValueError, TypeError):
        raise WeightsError(f"{path} says of itself {written[:80]!r}, which can't be read.") from None
    return facts


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return tensors


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is a damaged or cut-off safetensors file of {path.stat().st_size} bytes ({error}). "
        "Download it again."
    )


def _load_torch(path: Path, kind: Kind) -> Any:
    import torch

    try:
        # Only a zip can be mapped, and only by its path; but by its path torch judges a file by its suffix.
        if kind == "torch" and path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can raise anything
        refused = _refused_globals(path, error) if isinstance(error, pickle.UnpicklingError) else []
        if refused:
            raise WeightsError(
                f"{path} holds more than tensors: its pickle asks for {', '.join(refused)}, which could run "
                "code, so it is not loaded. If you trust its maker, load it where it was made with "
                "torch.load(..., weights_only=False), save its state dict with safetensors.torch.save_file, "
                "and use that file."
            ) from None
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"{path} is a damaged or cut-off torch file of {path.stat().st_size} bytes "
            f"({type(error).__name__}: {reason}). Download it again."
        ) from error


def _refused_globals(path: Path, error: Exception) -> list[str]:
    """The classes and functions that weights_only does not allow, found without unpickling."""
    import torch

    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # legacy files are not supported by it, and newer pickle opcodes neither
        names = []
    return sorted(names) or re.findall(r"GLOBAL (\S+)", str(error))[:1]


def _unwrapped(path: Path, loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, not a state dict.")
    tensors, wrappers = _state_dict(loaded)
    if not tensors:
        held = ", ".join(f"{key} ({type(value).__name__})" for key, value in list(loaded.items())[:8])
        raise WeightsError(
            f"{path} holds no state dict at its top or under {', '.join(WRAPPERS)}; "
            f"it has: {held or 'nothing'}."
        )
    if wrappers:
        logger.info("%s: reading the weights under %s", path.name, " / ".join(wrappers))
    return tensors


def _state_dict(mapping: Mapping[Any, Any], depth: int = 0) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the innermost wrapper that has any, and the wrappers' keys on the way to them."""
    from torch import Tensor

    for key in WRAPPERS:
        inner = mapping.get(key)
        if isinstance(inner, Mapping) and depth < MAX_WRAPPERS:
            tensors, wrappers = _state_dict(inner, depth + 1)
            if tensors:
                return tensors, (key, *wrappers)
    found = {
        key: value.detach()
        for key, value in mapping.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    return found, ()


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
