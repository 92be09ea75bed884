"""A plain download by URL that resumes, and shows under its name only when it is whole and verified."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.files import write_text
from lpcvc_zoo.weights.sources import Unreachable, WebFile, check

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # in a row that brought nothing new


class _TryAgain(Exception):
    pass


def download(source: WebFile, progress: type[Any] | None = None) -> Path:
    """The local copy of ``source``, downloaded if it is not there; one process at a time does it.

    A broken-off download goes on where it stopped, in this call or a later one, if the server still has the
    same file. WeightsError: not found or not allowed, not the published file, no space. Unreachable: all
    that another try may mend.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    (target,) = source.places
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.parent / f".{target.name}.lock"):
            if target.is_file():
                try:
                    check(target, source)
                    return target
                except WeightsError as error:
                    logger.warning("%s Downloading it again.", error)
            part = _Part(target)
            _fill(part, source, progress)
            try:
                check(part.path, source, f"What {source.url} gave")
            except WeightsError:
                part.discard()
                raise
            part.path.replace(target)
            part.discard()
    except OSError as error:  # the disk's; the network's are others
        raise WeightsError(
            f"{error.filename or target.parent} can't be written: {error.strerror}."
        ) from error
    return target


class _Part:
    """The bytes that came so far, and the validator (ETag or date) of the file they are of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def range_headers(self) -> dict[str, str]:
        """Ask for the rest only if the file is still the same; without a validator begin anew."""
        try:
            validator = json.loads(self._note.read_text(encoding="utf-8"))["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            validator = None
        if not validator:
            self.discard()
        return {"Range": f"bytes={self.size}-", "If-Range": validator} if self.size else {}

    def begin(self, headers: Mapping[str, str]) -> None:
        self.discard()
        etag = headers.get("ETag", "")
        # a weak ETag may stand for different bytes
        validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
        write_text(self._note, json.dumps({"validator": validator}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _fill(part: _Part, source: WebFile, progress: type[Any] | None) -> None:
    from huggingface_hub import errors

    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's
    fruitless = 0
    while True:
        before = part.size
        try:
            return _get(part, source, progress)
        except errors.OfflineModeIsEnabled:
            raise Unreachable("HF_HUB_OFFLINE is set") from None
        except (_TryAgain, http_error) as error:
            reason = str(error) or type(error).__name__
            fruitless = 0 if part.size > before else fruitless + 1
            if fruitless == ATTEMPTS:
                raise Unreachable(f"{source.url} could not be downloaded ({reason})") from error
            logger.warning("%s: %s; going on from byte %d", source.url, reason, part.size)
        time.sleep(fruitless)


def _get(part: _Part, source: WebFile, progress: type[Any] | None) -> None:
    """One request for what is missing. Returns when the file is whole by the server's own account."""
    from huggingface_hub import constants, get_session

    url = source.url
    headers = {"Accept-Encoding": "identity"} | part.range_headers()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
        status = answer.status_code
        if status in (401, 403):
            raise WeightsError(f"{url} is not open to you (HTTP {status}). Get the file and pass its path.")
        if status in (404, 410):
            raise WeightsError(f"{url} does not exist (HTTP {status}); it may have moved.")
        if status == 206:
            start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if start is None or int(start[1]) != part.size:
                part.discard()
                raise _TryAgain("the server resumed at the wrong byte")
        elif status == 200:
            part.begin(answer.headers)
        elif status == 416:  # nothing after what we have: it was whole already, or the server is odd
            if answer.headers.get("Content-Range") == f"bytes */{part.size}":
                return
            part.discard()
            raise _TryAgain("the server could not resume")
        elif status in (408, 429) or status >= 500:
            raise _TryAgain(f"HTTP {status}")
        else:
            raise WeightsError(f"{url} answered with HTTP {status}.")
        length = answer.headers.get("Content-Length")
        total = part.size + int(length) if length else None
        _require_space(part.path, int(length or 0))
        with part.path.open("ab") as file, _bar(progress, source, part.size, total) as bar:
            for chunk in answer.iter_raw():
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    part.discard()
                    raise WeightsError(
                        f"{part.path.parent} has no room for {url}: {error.strerror}. "
                        f"{f'It takes {total} bytes. ' if total else ''}Free some, or set LPCVC_ZOO_CACHE."
                    ) from error
                bar.update(len(chunk))
    if total is not None and part.size != total:
        raise _TryAgain(f"{part.size} of {total} bytes came")


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise WeightsError(
            f"The disk of {path.parent} has {free} bytes free, but {needed} more are needed. "
            "Free some, or set LPCVC_ZOO_CACHE."
        )


def _bar(progress: type[Any] | None, source: WebFile, done: int, total: int | None) -> Any:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    facts = {"total": total, "initial": done, "unit": "B", "unit_scale": True, "desc": source.places[0].name}
    if progress is not None:
        return progress(**facts)
    return tqdm(**facts, disable=None)  # type: ignore[no-untyped-call]  # None: drawn only on a terminal
