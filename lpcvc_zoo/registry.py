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
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, TypedDict
from zlib import crc32

from lpcvc_zoo import backbones
from lpcvc_zoo.contract import Contract, get_contract
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.errors import RegistryError, UnknownNameError, WeightsError
from lpcvc_zoo.plugins import distribution, points

if TYPE_CHECKING:
    from lpcvc_zoo.model import DualEncoder, Towers
    from lpcvc_zoo.weights.load import Checkpoint, Choice

GROUP = "lpcvc_zoo.backbones"


class BuildOptions(TypedDict, total=False):
    """The options of ``build``, for those that pass them on."""

    pretrained: Choice
    contract: str | Contract
    fuse: bool
    image_size: int | None
    text_length: int | None
    text_depth: int | None


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
    pretrained: Choice = False,
    contract: str | Contract = "lpcvc2026",
    fuse: bool = True,
    image_size: int | None = None,
    text_length: int | None = None,
    text_depth: int | None = None,
) -> DualEncoder:
    """A model by name, under a contract, in eval mode.

    ``pretrained``: False for untrained weights that are the same every time; True for the entry's first
    published checkpoint; a tag; ``"hf-hub:org/repo[@revision]"``; the path of a checkpoint in any published
    layout; or several of these, averaged: a list, or a mapping with each one's share. A tag may also stand in
    the name: ``"mobileclip_s0.datacompdr"``.

    ``fuse`` folds reparameterisable branches and BatchNorm, for inference; leave it off to train.
    ``image_size`` is the tower's own input size where another than the entry's is wanted: positions are
    interpolated. ``text_length`` cuts the text sequence to that many tokens inside the graph (the contract's
    shape stays): exact for causal towers, a trade for others. ``text_depth`` keeps the first so many layers
    of the text transformer: always a trade.

    UnknownNameError for an unknown model, tag or contract; WeightsError for a checkpoint that can't be had,
    read or fitted; ContractError for an image size, text length or text depth that the towers can't take.
    """
    entry = get_entry(name)
    resolved = contract if isinstance(contract, Contract) else get_contract(contract)
    choice = chosen_weights(name, pretrained)
    from lpcvc_zoo.fuse import fuse as fuse_towers
    from lpcvc_zoo.model import DualEncoder

    checkpoint = None
    if choice is not False:
        from lpcvc_zoo.weights.load import load

        checkpoint = load(entry, choice)
    towers = _towers(entry, checkpoint)
    if image_size is not None and image_size != entry.image_size:
        from lpcvc_zoo.backbones._sized import set_image_size

        set_image_size(towers, image_size, what=entry.name)
        entry = entry.model_copy(update={"image_size": image_size})
    if checkpoint is not None:
        checkpoint.load_into(towers)
        checkpoint.warn_unless(image_size=entry.image_size, contract=resolved.name)
    if text_depth is not None:
        from lpcvc_zoo.backbones._depth import set_text_depth

        set_text_depth(towers, text_depth, what=entry.name)
    if fuse:
        fuse_towers(towers, entry.image_size, entry.text.context_length)
    return DualEncoder(
        towers,
        entry,
        resolved,
        checkpoint.preprocessing if checkpoint else entry.preprocessing,
        text_length=text_length,
        weights=checkpoint.label if checkpoint else "untrained",
    ).eval()


def chosen_weights(name: str, pretrained: Choice) -> Choice:
    """What ``name`` and ``pretrained`` ask for together; WeightsError where they name two things."""
    tag = name.partition(".")[2]
    if tag and pretrained not in (False, True, tag):
        raise WeightsError(
            f"{name!r} names the checkpoint {tag!r} and pretrained= names {pretrained!r}. Leave one out."
        )
    return tag or pretrained


def _towers(entry: Entry, checkpoint: Checkpoint | None) -> Towers:
    """Towers for a checkpoint to be loaded into: sized by it where only it knows the sizes."""
    if checkpoint is None or entry.make_for is None:
        return untrained(entry)
    import torch

    with torch.random.fork_rng(devices=[]):
        towers: Towers = entry.make_for(checkpoint.shapes)
    return towers.eval()


def untrained(entry: Entry) -> Towers:
    """The entry's towers with random weights that are the same every time and disturb no other seed."""
    import torch

    from lpcvc_zoo.model import Towers

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed a GPU as well, which fork_rng is not asked to restore.
        torch.default_generator.manual_seed(crc32(entry.name.encode()))
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
    for point in points(GROUP):
        owner = distribution(point)
        try:
            _add(_loaded(point), owner, entries, owners)
        except (Exception, SystemExit) as error:  # a plugin may raise anything
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
