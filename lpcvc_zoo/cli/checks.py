"""What ``doctor`` looks at. Each check says what it found and, where that is not enough, how to fix it."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from typing import Literal

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.files import cache_dir, try_to_write

DISTRIBUTION = "lpcvc-zoo"
PYTHON = (3, 11)
ROOM = 5e9  # bytes; a sweep over all models keeps more than that


class Check(BaseModel):
    """``state``: "bad" has to be fixed, "missing" only for what it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    state: Literal["ok", "missing", "bad"]
    found: str
    fix: str | None = None


def all_checks() -> list[Check]:
    return [check_python(), *check_packages(), check_cache(), *check_aihub()]


def check_python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= PYTHON:
        return Check(what="python", state="ok", found=found)
    wanted = ".".join(map(str, PYTHON))
    return Check(what="python", state="bad", found=found, fix=f"Make an environment with Python {wanted}.")


def check_packages() -> list[Check]:
    """The distribution's own requirements, and those of its extras for users."""
    try:
        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        fix = f"pip install {DISTRIBUTION}, or `pip install -e .` in a clone"
        return [Check(what="packages", state="bad", found=f"{DISTRIBUTION} is not installed", fix=fix)]
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    problems = [problem for item in needed if (problem := _problem(item))]
    found = f"all {len(needed)} that {DISTRIBUTION} {metadata.version(DISTRIBUTION)} needs"
    checks = [
        Check(what="packages", state="bad", found="; ".join(problems), fix=f"pip install -U {DISTRIBUTION}")
        if problems
        else Check(what="packages", state="ok", found=found)
    ]
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for extra in (extra for extra in extras if extra != "dev"):
        own = [item for item in requirements if item.marker and item.marker.evaluate({"extra": extra})]
        own = [item for item in own if item not in needed]
        missing = [problem for item in own if (problem := _problem(item))]
        checks.append(
            Check(
                what=f"extra {extra}",
                state="missing",
                found="; ".join(missing),
                fix=f"pip install -U '{DISTRIBUTION}[{extra}]'",
            )
            if missing
            else Check(what=f"extra {extra}", state="ok", found=", ".join(map(_version, own)))
        )
    return checks


def check_cache() -> Check:
    """How much lies in the cache folder, of what kind, and how much room the disk has left."""
    folder = cache_dir()
    try:
        try_to_write(folder)
        kinds = {
            kind.name: sum(path.stat().st_size for path in kind.rglob("*") if path.is_file())
            for kind in (sorted(folder.iterdir()) if folder.is_dir() else [])
            if kind.is_dir()
        }
    except OSError as error:
        fix = "Set LPCVC_ZOO_CACHE to a folder of yours; it need not exist yet."
        found = f"{folder} can't be read and written: {error.strerror or error}"
        return Check(what="cache", state="bad", found=found, fix=fix)
    parts = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in kinds.items()) or "empty"
    exists = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(exists).free
    found = f"{folder}: {parts}; {free / 1e9:.0f} GB free on its disk"
    if free >= ROOM:
        return Check(what="cache", state="ok", found=found)
    fix = (
        "While nothing runs, delete any folder in it but aihub, which remembers the jobs that were sent: "
        "what is needed comes again. Or set LPCVC_ZOO_CACHE."
    )
    return Check(what="cache", state="missing", found=found, fix=fix)


def check_aihub() -> list[Check]:
    """The way to Qualcomm AI Hub: the client's configuration, then the service. Stops at what is missing."""
    from lpcvc_zoo.targets.aihub import Patience, ServiceUnavailableError, open_service
    from lpcvc_zoo.targets.aihub.config import HOW, config_path, installed

    if not installed():  # the extra's own check says so
        return []
    try:
        service = open_service(patience=Patience(tries=1))
    except ZooError as error:
        return [
            Check(what="AI Hub token", state="missing", found=str(error).removesuffix(f" {HOW}"), fix=HOW)
        ]
    checks = [Check(what="AI Hub token", state="ok", found=f"in {config_path()}, not shown")]
    try:
        service.greet()
    except ServiceUnavailableError as error:
        fix = "Check the network, a proxy (HTTPS_PROXY), and the service's status page; then run this again."
        return [*checks, Check(what="AI Hub service", state="bad", found=str(error), fix=fix)]
    except ZooError as error:
        fix = "pip install -U qai-hub" if "upgrade" in str(error).lower() else HOW
        return [*checks, Check(what="AI Hub service", state="bad", found=str(error), fix=fix)]
    found = f"{service.api_url} answers; token and client {metadata.version('qai-hub')} accepted"
    return [*checks, Check(what="AI Hub service", state="ok", found=found)]


def _problem(requirement: Requirement) -> str | None:
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found}, expected {requirement.specifier}"


def _version(requirement: Requirement) -> str:
    return f"{requirement.name} {metadata.version(requirement.name)}"
