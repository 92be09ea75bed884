"""What makes one choice of weights different from another, for keys of caches; loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lpcvc_zoo.entry import Entry
from lpcvc_zoo.files import given_path
from lpcvc_zoo.weights.fetch import files_of
from lpcvc_zoo.weights.hashes import sha256_once
from lpcvc_zoo.weights.load import HUB, Choice, record_of


def identity_of(entry: Entry, choice: Choice) -> Any:
    """A JSON value: a published checkpoint by its record, a hub repository by name, a file by its sha256."""
    if choice is False:
        return "untrained"
    if isinstance(choice, Mapping):
        return [[identity_of(entry, source), share] for source, share in choice.items()]
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        return [identity_of(entry, source) for source in choice]
    record = record_of(entry, choice)
    if record is not None:
        facts = record.model_dump(mode="json", exclude={"scores"})
        if record.shipped is not None:
            facts["sha256"] = [sha256_once(path) for path in files_of(record, model=entry.name)]
        return facts
    if str(choice).startswith(HUB):
        return choice
    path = given_path(str(choice))
    return sha256_once(path) if path.is_file() else str(path)
