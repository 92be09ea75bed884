"""Fixtures that several test files use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aihub_server import AIHubServer


@pytest.fixture(scope="session")
def hub_server() -> Iterator[AIHubServer]:
    from aihub_server import AIHubServer

    with AIHubServer() as server:
        yield server


@pytest.fixture
def hub(hub_server: AIHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AIHubServer:
    """Qualcomm AI Hub on this machine, with the client pointed at it and all waiting cut short."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(hub_server.ini(tmp_path)))
    hub_server.reset()
    return hub_server
