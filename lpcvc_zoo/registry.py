"""Every entry there is: the families of ``backbones/`` and those of other distributions, on one road.

A third party writes one file that ends in ``ENTRIES`` and adds a line to its own pyproject.toml::

    [project.entry-points."lpcvc_zoo.backbones"]
    my_family = "my_package.my_family"

Nothing here imports torch before ``build``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any
from zlib import crc32

from lpcvc_zoo import backbones
from lpcvc_zoo.contract import Contract, get_contract
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import RegistryError, UnknownNameError, WeightsError

if TYPE_CHECKING:
    from lpcvc_zoo.model import DualEncoder, Towers

GROUP = "lpcvc_zoo.backbones"


@dataclass(frozen=True)
class _Found:
    entries: dict[str, Entry]
    problems: tuple[str, ...]


def list_models(
    pattern: str = "*", *, family: str | None = None, pretrained: bool | None = None
) -> list[str]:
    """Names of entries, sorted: matching ``pattern`` (``*``, ``?``, ``[...]``), of one family, or with
    (``pretrained=True``) or without (``False``) published checkpoints. Imports no torch.

    UnknownNameError for a family that does not exist.
    """
    entries = _found().entries
    families = {entry.family for entry in entries.values()}
    if family is not None and family not in families:
        raise UnknownNameError("family", family, families)
    return sorted(
        name
        for name, entry in entries.items()
        if fnmatchcase(name, pattern)
        and family in (None, entry.family)
        and pretrained in (None, bool(entry.pretrained))
    )


def get_entry(name: str) -> Entry:
    """The entry of that name; a tag after it (``"mobileclip_s0.datacompdr"``) must exist and is ignored.

    UnknownNameError suggests the nearest names, and says which plugins could not be used.
    """
    entry_name, dot, tag = name.partition(".")
    found = _found()
    if entry_name not in found.entries:
        hint = "".join(f" A plugin could not be used: {problem}" for problem in found.problems)
        raise UnknownNameError("model", entry_name, found.entries, f"See `lpcvc-zoo list`.{hint}")
    entry = found.entries[entry_name]
    if dot:
        entry.checkpoint(tag)
    return entry


def plugin_problems() -> tuple[str, ...]:
    """Why plugins could not be used, each naming its distribution; empty where all is well."""
    return _found().problems


def build(
    name: str,
    *,
    pretrained: bool | str = False,
    contract: str | Contract = "lpcvc2026",
    fuse: bool = True,
    text_length: int | None = None,
) -> DualEncoder:
    """A model by name, under a contract, in eval mode.

    Untrained by default, with the same weights every time. ``fuse`` folds reparameterisable branches and
    BatchNorm, for inference; leave it off to train. ``text_length`` cuts the text sequence to that many
    tokens inside the graph (the contract's shape stays): exact for causal towers, a trade for others.

    UnknownNameError for an unknown model, tag or contract; ContractError for a text length out of range.
    """
    entry = get_entry(name)
    resolved = contract if isinstance(contract, Contract) else get_contract(contract)
    tag = name.partition(".")[2]
    if tag or pretrained:
        raise WeightsError(f"{entry.name}: loading published checkpoints is not built yet.")
    from lpcvc_zoo.fuse import fuse as fuse_towers
    from lpcvc_zoo.model import DualEncoder

    towers = untrained(entry)
    if fuse:
        fuse_towers(towers, entry.image_size, entry.text.context_length)
    return DualEncoder(towers, entry, resolved, entry.preprocessing, text_length=text_length).eval()


def untrained(entry: Entry) -> Towers:
    """The entry's towers with random weights that are the same every time and disturb no other seed."""
    import torch

    from lpcvc_zoo.model import Towers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(crc32(entry.name.encode()))
        towers = entry.make()
    if not isinstance(towers, Towers):
        raise RegistryError(
            f"{entry.name}: make() must return lpcvc_zoo.Towers, got {type(towers).__name__}."
        )
    return towers.eval()


@cache
def _found() -> _Found:
    """All entries and all problems. A plugin that breaks any rule is left out whole; the rest goes on."""
    entries: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for info in pkgutil.iter_modules(backbones.__path__):
        if info.name.startswith("_"):  # parts of families; these import torch
            continue
        module = import_module(f"{backbones.__name__}.{info.name}")
        _add(getattr(module, "ENTRIES", ()), "lpcvc_zoo itself", entries, owners)
    problems: list[str] = []
    for point in _plugins():
        owner = _distribution(point)
        try:
            _add(_loaded(point), owner, entries, owners)
        except Exception as error:  # a plugin may raise anything
            problems.append(f"{owner} ({point.value}): {type(error).__name__}: {error}")
    return _Found(entries, tuple(problems))


def _add(given: Sequence[Entry], owner: str, entries: dict[str, Entry], owners: dict[str, str]) -> None:
    new: dict[str, Entry] = {}
    for entry in given:
        if not isinstance(entry, Entry):
            raise RegistryError(f"ENTRIES must hold lpcvc_zoo.Entry objects, got {type(entry).__name__}.")
        if entry.name in new or entry.name in entries:
            raise RegistryError(
                f"The name {entry.name!r} is taken by {owners.get(entry.name, owner)}. Rename the entry."
            )
        new[entry.name] = entry
    entries.update(new)
    owners.update(dict.fromkeys(new, owner))


def _loaded(point: EntryPoint) -> Sequence[Entry]:
    """The entries behind an entry point: a module that ends in ``ENTRIES``, or such a tuple itself."""
    loaded: Any = point.load()
    entries = getattr(loaded, "ENTRIES", loaded)
    if not isinstance(entries, tuple | list):
        raise RegistryError("expected a module with ENTRIES, a tuple of lpcvc_zoo.Entry objects.")
    return entries


def _plugins() -> list[EntryPoint]:
    """Third-party entry points, in the order of their distributions' names, each once."""
    unique = {(_distribution(point), point.name, point.value): point for point in entry_points(group=GROUP)}
    return [unique[key] for key in sorted(unique)]


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown distribution)"
