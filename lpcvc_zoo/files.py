"""Files written whole or not at all, hashed, and kept in one cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "LPCVC_ZOO_CACHE"


def cache_dir() -> Path:
    """The folder for exports, locks and downloads: ``$LPCVC_ZOO_CACHE``, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()  # child processes have a current folder of their own
    return Path(platformdirs.user_cache_dir("lpcvc_zoo"))


def given_path(given: str | Path) -> Path:
    """A path as somebody wrote it, with ``~`` for a home folder; ``~nobody`` stays a name, as in a shell."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        return Path(given)


def try_to_write(folder: Path) -> None:
    """OSError unless files can be written into ``folder``, which need not be there yet; leaves nothing.

    It really tries: permissions say nothing of a disk that is mounted for reading alone.
    """
    chosen = folder.absolute()
    nearest = next(path for path in (chosen, *chosen.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"expected a folder, but {nearest} is none")
    with tempfile.TemporaryFile(dir=nearest):
        pass


def try_to_write_file(path: Path) -> None:
    """OSError unless a file can be written at ``path``; makes nothing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, and it is a folder")
    try_to_write(path.parent)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; it takes ``path``'s place when the block ends well.

    A reader, a crash or a full disk never sees half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put_folder(made: Path, folder: Path) -> None:
    """Put a folder that is complete in another's place, on one disk; what was there is gone afterwards.

    OSError, with the earlier folder still there, where it holds files that ``made`` does not.
    """
    if folder.exists():
        others = sorted({path.name for path in folder.iterdir()} - {path.name for path in made.iterdir()})
        if others:
            raise OSError(errno.ENOTEMPTY, f"it holds other files ({', '.join(others[:3])})")
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        folder.replace(aside / folder.name)
        made.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        made.rename(folder)
    folder.chmod(0o755)  # mkdtemp makes it private


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``; it takes ``folder``'s place when the block ends well.

    What lay there when the block began is damaged or to be made anew, and goes. What another process has
    put there since stays, with all that has been added to it: contents are named by their hash.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    earlier = _identity(folder)
    try:
        yield temporary
        settle(temporary, folder, replacing=earlier is not None and _identity(folder) == earlier)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _identity(folder: Path) -> int | None:
    """A number that no other folder on this disk has while this one is there; None where nothing is."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def settle(temporary: Path, folder: Path, *, replacing: bool = True) -> None:
    """Give a finished temporary folder its name, ``replacing`` what lies there; else another's stays."""
    temporary.chmod(0o755)  # mkdtemp makes it private
    if replacing:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
