"""The Hugging Face hub's road: huggingface_hub downloads and caches; we verify, and explain its errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.weights.hashes import sha256_once
from lpcvc_zoo.weights.sources import HubFile, Unreachable, check

# As open_clip and transformers publish checkpoints, best first; after these, a repository's only *.pt.
USUAL_FILES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin",
)  # fmt: skip
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def cached_on_hub(source: HubFile) -> Path | None:
    """The first of the source's files in the hub's own cache, unverified; no network."""
    from huggingface_hub import try_to_load_from_cache

    for file in source.files:
        path = try_to_load_from_cache(source.repo, file, revision=source.revision)
        if isinstance(path, str):
            return Path(path)
    return None


def download_from_hub(source: HubFile, progress: type[Any] | None = None) -> Path:
    """The file in the hub's cache, downloaded or brought up to date, and verified.

    WeightsError: not found, not allowed, not the published file, no space. Unreachable: the network.
    """
    from huggingface_hub import errors, hf_hub_download

    for file in source.files:
        try:
            path = Path(hf_hub_download(source.repo, file, revision=source.revision, tqdm_class=progress))
        except errors.RemoteEntryNotFoundError as error:
            if file == source.files[-1]:
                _give_up(error, source.repo, source.revision, file)
            continue  # to the next of the usual names
        except errors.LocalEntryNotFoundError as error:  # no network; perhaps the cache has another name
            path = cached_on_hub(source) or _give_up(error, source.repo, source.revision, file)
        except Exception as error:  # the hub's own errors, the HTTP library's, the disk's
            _give_up(error, source.repo, source.revision, file)
        _verify(path, source)
        return path
    raise AssertionError("a source has at least one file")


def is_damaged(path: Path) -> bool | None:
    """Whether a file of the hub's cache differs from what the hub said it is; None where it did not say."""
    blob = path.resolve()  # named by the hub's ETag, which for a large file is its sha256
    return sha256_once(blob) != blob.name if re.fullmatch("[0-9a-f]{64}", blob.name) else None


def list_files(repo: str, revision: str | None) -> list[str]:
    """The names of all files in a hub repository. Errors as for ``download_from_hub``."""
    from huggingface_hub import HfApi

    try:
        return [file.rfilename for file in HfApi().model_info(repo, revision=revision).siblings or ()]
    except Exception as error:  # as above
        _give_up(error, repo, revision)


def list_cached_files(repo: str, revision: str | None) -> list[str]:
    """The names of those files that the hub's cache holds of the revision; no network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    wanted = revision or "main"
    return [
        file.file_path.relative_to(cached.snapshot_path).as_posix()
        for repository in repositories
        if (repository.repo_id, repository.repo_type) == (repo, "model")
        for cached in repository.revisions
        if wanted in cached.refs or wanted == cached.commit_hash
        for file in cached.files
    ]


def choose_file(repo: str, names: Iterable[str]) -> str:
    """The checkpoint among a repository's files; WeightsError lists them if none or several could be it."""
    names = sorted(names)
    for usual in USUAL_FILES:
        if usual in names:
            return usual
    own = [name for name in names if name.endswith(".pt")]
    if len(own) == 1:
        return own[0]
    raise WeightsError(
        f"{repo} has none of {', '.join(USUAL_FILES)}, and {len(own) or 'no'} *.pt files; it holds: "
        f"{', '.join(names[:20]) or 'nothing'}. Get one with `hf download {repo} FILE` and pass its path."
    )


def _verify(path: Path, source: HubFile) -> None:
    damaged = is_damaged(path)
    try:
        check(path, source, f"What the hub gave for {path.name} of {source.repo}")
        if damaged:
            raise WeightsError(
                f"{path.name} of {source.repo} was damaged on its way: its sha256 is not the one "
                "that the hub names. Try again."
            )
    except WeightsError:
        if damaged is not False:  # a sound file may serve other programs, even if it is not our record's
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        raise


def _give_up(error: Exception, repo: str, revision: str | None, file: str = "") -> NoReturn:
    """Raise what the hub's error means: WeightsError, or Unreachable for all that is the network's fault."""
    from huggingface_hub import constants, errors

    # without a network the hub looks into its cache, and hides behind this what went wrong before
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    cause = cause or error
    page = f"{constants.ENDPOINT}/{repo}"
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.GatedRepoError):
        message = f"{repo} is gated: accept its licence at {page} with your account, then {LOG_IN}."
    elif isinstance(cause, errors.RevisionNotFoundError):
        message = f"{page} has no revision {revision or 'main'!r}."
    elif isinstance(cause, errors.RemoteEntryNotFoundError):
        message = f"{page} has no file {file} at revision {revision or 'main'!r}."
    elif isinstance(cause, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        message = (
            f"{page} at revision {revision or 'main'!r} can't be read (HTTP {status}): there is no such "
            f"repository, or it is private, or your token is not valid. Check the name; if it is private, "
            f"{LOG_IN}."
        )
    elif isinstance(cause, errors.HFValidationError):
        message = f"{repo!r} is no name of a hub repository: {cause}"
    elif isinstance(cause, OSError) and cause.errno in DISK_FULL:
        message = f"No room for {file} of {repo} below {constants.HF_HUB_CACHE}. Free some, or set HF_HOME."
    elif isinstance(cause, PermissionError):
        message = f"{cause.filename or constants.HF_HUB_CACHE} can't be written: {cause.strerror}."
    else:
        raise Unreachable(_reason(cause, constants.ENDPOINT)) from error
    raise WeightsError(message) from error


def _reason(cause: BaseException, endpoint: str) -> str:
    from huggingface_hub import errors

    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(cause, errors.FileMetadataError):
        return f"{endpoint} does not answer as a hub does (check HF_ENDPOINT, the proxy and the firewall)"
    first_line = (str(cause).strip().split("\n") or [""])[0]
    return f"the download from {endpoint} failed ({type(cause).__name__}: {first_line})"
