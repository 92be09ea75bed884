"""What this machine has sent to one service, by content: models, datasets and jobs, one small file each.

A job's record is written before the job is submitted and again with its id, so that a process that dies in
between leaves a trace: the next one looks the job up by its name instead of submitting it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.files import cache_dir, write_text

R = TypeVar("R", bound=BaseModel)


class Upload(BaseModel):
    """A model or dataset at the service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str


class JobRecord(BaseModel):
    """A job that was, or was about to be, submitted. ``since``: seconds since the epoch, before submitting.

    ``failed``: the service's reason; ``retry``: the failure was not the model's, so it may be tried again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    since: float
    attempt: int = 1
    job_id: str | None = None
    failed: str | None = None
    retry: bool = False


class Store:
    """Records of one service's objects, in the cache folder."""

    def __init__(self, service: str) -> None:
        safe = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in service)
        self.folder = cache_dir() / "aihub" / safe

    def path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"

    def get(self, kind: str, key: str, record: type[R]) -> R | None:
        try:
            return record.model_validate_json(self.path(kind, key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError, OSError) as error:
            raise TargetError(
                f"{self.path(kind, key)} can't be read: {error}. It remembers what was sent to AI Hub; "
                "remove it to send that again."
            ) from None

    def put(self, kind: str, key: str, record: BaseModel) -> None:
        path = self.path(kind, key)
        try:
            write_text(path, record.model_dump_json())
        except OSError as error:
            raise TargetError(f"{path} can't be written: {error.strerror or error}.") from None

    @contextmanager
    def held(self, kind: str, key: str) -> Iterator[None]:
        """Keep other processes from sending the same thing meanwhile; the kernel frees a dead one's hold."""
        path = self.path(kind, key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise TargetError(f"{path} can't be written: {error.strerror or error}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
