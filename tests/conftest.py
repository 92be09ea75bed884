"""Settings of the whole run, and fixtures that several test files use."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aihub_server import AIHubServer

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Have the exporter parse its operators' sources once: it does for every export."""
    if "torch" in sys.modules:
        from torch.onnx._internal.exporter._registration import onnxscript_apis

        onnxscript_apis.get_torchlib_ops = remembered(onnxscript_apis.get_torchlib_ops)


@pytest.fixture(scope="session")
def shared_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all workers of one run keep exports of real models: by content, so nothing can mix."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def cache(tmp_path: Path, shared_exports: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, but for exports, which take long."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "exports").symlink_to(shared_exports)
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def hub_server() -> Iterator[AIHubServer]:
    from aihub_server import AIHubServer

    with AIHubServer() as server:
        yield server


@pytest.fixture
def hub(hub_server: AIHubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AIHubServer:
    """Qualcomm AI Hub on this machine, with the client pointed at it and all waiting cut short."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(hub_server.ini(tmp_path)))
    hub_server.reset()
    return hub_server


@pytest.fixture(scope="module")
def tiny_registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tiny entries in the registry, and a cache of this module's own."""
    from training_tiny import registered  # late: it loads torch, whose threads are set above

    with registered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPCVC_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
