"""Locks that die with their holder: one for a quiet machine, one that shows a sweep is alive.

All are ``flock`` locks on small files: the kernel drops them however a process ends, they see through
containers that share the folder, and a reused process id can't be mistaken for its former owner.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from lpcvc_zoo.errors import LedgerError
from lpcvc_zoo.files import cache_dir


@contextmanager
def held(path: Path, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock on ``path`` for the block; ``on_wait`` is called once if somebody else holds it now."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def busy_machine(on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
    """Work that may run beside other work but not beside a latency measurement (exports, scoring)."""
    return held(_machine_lock(), shared=True, on_wait=on_wait)


def quiet_machine(on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
    """Latency measurements: nothing else of ours runs on this machine meanwhile, in any sweep."""
    return held(_machine_lock(), on_wait=on_wait)


class Alive:
    """A mark in a folder that shows this process to be alive, until ``close`` or the process's end."""

    def __init__(self, folder: Path) -> None:
        self.name = uuid.uuid4().hex
        self._folder = folder
        self._path = folder / f"{self.name}.lock"
        self._descriptor: int | None = _open(self._path)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def others(self, name: str) -> bool:
        """Whether ``name`` is the mark of another holder that still lives; a dead one's file is removed."""
        if name == self.name:
            return False
        path = self._folder / f"{name}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _machine_lock() -> Path:
    return cache_dir() / "measure.lock"


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LedgerError(f"The lock file {path} can't be written: {error.strerror}.") from error
