"""Published checkpoints as local files: from this package, the cache, the hub or the web, and verified.

A file is taken from the first place that has it: one put by hand where the error message says, the hub's own
cache or ours, the network. The hub's settings (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN) do what they
always do; HF_HUB_OFFLINE stops plain downloads too.
"""

from __future__ import annotations

import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from lpcvc_zoo.data import SHIPPED
from lpcvc_zoo.entry import Pretrained
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.weights.download import download
from lpcvc_zoo.weights.hashes import sha256_once
from lpcvc_zoo.weights.hub import (
    cached_on_hub,
    choose_file,
    download_from_hub,
    is_damaged,
    list_cached_files,
    list_files,
)
from lpcvc_zoo.weights.sources import HubFile, Source, Unreachable, check, hub_folder, source_of

logger = logging.getLogger(__name__)

HUB_SPEC = re.compile(r"hf-hub:(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\S+))?")


def files_of(record: Pretrained, *, model: str) -> tuple[Path, ...]:
    """The files of the record's checkpoint: those that come with this package, else what ``fetch`` gives."""
    if record.shipped is None:
        return (fetch(record, model=model),)
    paths = tuple(SHIPPED / name for name in record.shipped)
    for path in paths:
        if not path.is_file():
            raise WeightsError(f"{path} should have come with lpcvc_zoo and is not there. Install it again.")
    return paths


def fetch(record: Pretrained, *, model: str, progress: type[Any] | None = None) -> Path:
    """The record's checkpoint as a local file, downloaded if need be, size and sha256 checked where known.

    ``model`` is the entry's name, for messages. ``progress`` is a tqdm class that draws the download;
    huggingface_hub's own if left out. WeightsError: not to be had (which file, where it is, and three
    ways on), not allowed, not the published file, no space.
    """
    source = source_of(record)
    cached = _on_disk(source)
    # A hub revision may move: only a file put there by hand or known by its hash needs no look at the hub.
    if cached is not None and (cached in source.places or source.sha256 is not None):
        return cached
    try:
        return (
            download_from_hub(source, progress) if isinstance(source, HubFile) else download(source, progress)
        )
    except Unreachable as error:
        size = f"{source.size_bytes / 1e6:.1f} MB" if source.size_bytes else "size unknown"
        raise _not_to_be_had(
            f"{model}.{record.tag}", error, source.places[0].name, f"{source.url} ({size})", source.places[0]
        ) from error


def is_here(record: Pretrained) -> bool:
    """Whether the record's checkpoint needs no network: it came with this package, or is in a cache."""
    return record.shipped is not None or find_cached(record) is not None


def find_cached(record: Pretrained) -> Path | None:
    """The record's checkpoint if a verified copy of it is on this machine, else None. No network."""
    return _on_disk(source_of(record))


def fetch_hub(spec: str, *, progress: type[Any] | None = None) -> Path:
    """The checkpoint of ``"hf-hub:org/repo[@revision]"`` as a local file, as ``fetch`` gives it.

    Of the repository's files it is the first of open_clip's and transformers' usual names, else its only
    ``*.pt``. WeightsError as for ``fetch``, and for a repository without one such file.
    """
    match = HUB_SPEC.fullmatch(spec)
    if match is None:
        raise WeightsError(f"{spec!r} is not of the form 'hf-hub:org/repo' or 'hf-hub:org/repo@revision'.")
    repo, revision = match["repo"], match["revision"]
    folder = hub_folder(repo, revision)
    by_hand = [path.name for path in folder.glob("*") if path.is_file()]
    if by_hand:
        path = folder / choose_file(repo, by_hand)
        check(path, HubFile(repo, (path.name,), revision))
        return path
    try:
        try:
            names = list_files(repo, revision)
        except Unreachable:
            names = list_cached_files(repo, revision)
            if not names:
                raise
        return download_from_hub(HubFile(repo, (choose_file(repo, names),), revision), progress)
    except Unreachable as error:
        where = f"{spec.removeprefix('hf-hub:')} on the hub (size unknown)"
        raise _not_to_be_had(spec, error, "a checkpoint", where, folder) from error


def sha_of(*paths: Path) -> str:
    """The first 8 hex digits of the file's sha256, for ``tag@sha``; of several files, of their sha256s."""
    digests = [sha256_once(path) for path in paths]
    return (digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest())[:8]


def _on_disk(source: Source) -> Path | None:
    candidates = [place for place in source.places if place.is_file()]
    if isinstance(source, HubFile) and (cached := cached_on_hub(source)) is not None:
        candidates.append(cached)
    for path in candidates:
        try:
            check(path, source)
        except WeightsError as error:
            logger.warning("%s It is not used.", error)
            continue
        if path in source.places or not is_damaged(path):
            return path
        logger.warning("%s is damaged. It is not used.", path)
    return None


def _not_to_be_had(what: str, why: Unreachable, file: str, where: str, place: Path) -> WeightsError:
    return WeightsError(
        f"{what} needs {file}, which is not on this machine, and {why}.\n"
        f"It is at {where}. Three ways on:\n"
        f"  put the file at {place}\n"
        "  name a checkpoint that you have: pretrained=PATH, in a shell --pretrained PATH\n"
        "  take the untrained model: pretrained=False, in a shell the name without a tag"
    )
