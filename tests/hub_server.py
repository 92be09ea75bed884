"""A Hugging Face hub on this machine's loopback, for tests: it speaks the protocol of the real one.

``/{repo}/resolve/{revision}/{file}`` answers with the file's facts in headers and redirects to another host
name (``localhost`` instead of ``127.0.0.1``) as the hub does to its CDN; ``/api/models/{repo}`` lists a
repository; ``/files/{name}`` is a plain web server with ranges. Xet is not advertised. Faults are injected
request by request.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What happens, once, to a request whose path holds ``path`` instead of the right answer."""

    path: str
    method: str = "GET"
    status: int | None = None  # answer with this, and ``body``
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop_after: int | None = None  # close the connection after so many bytes of the right answer
    no_ranges: bool = False  # send the whole file, whatever was asked for
    delay: float = 0.0  # seconds before the right answer


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


@dataclass
class Repo:
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def commit(self, revision: str) -> str:
        return hashlib.sha1(revision.encode()).hexdigest()


class HubServer:
    """``with HubServer() as hub``: publish files, inject faults, read what was asked in ``seen``."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # by sha256; change one to send other bytes than were promised
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.token: str | None = None
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, repo: str, files: dict[str, bytes], revision: str = "main") -> None:
        self.repos.setdefault(repo, Repo()).revisions[revision] = files
        self.blobs |= {hashlib.sha256(body).hexdigest(): body for body in files.values()}

    def fail(self, path: str, times: int = 1, **how: Any) -> None:
        self.faults += [Fault(path, **how) for _ in range(times)]

    def asked(self, path: str = "", method: str = "GET") -> list[Seen]:
        return [request for request in self.seen if request.method == method and path in request.path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.hub.seen.append(Seen(self.command, path, headers))
            matching = [f for f in self.hub.faults if f.method == self.command and f.path in path]
            fault = matching[0] if matching else None
            if fault is not None:
                self.hub.faults.remove(fault)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.status is not None:
                return self._send(fault.status, fault.headers, fault.body)
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "files":
            return self._send_file(self.hub.files.get(rest), fault)
        if kind == "cdn":
            return self._send_file(self.hub.blobs.get(rest), fault)
        if path.startswith("/api/models/"):
            return self._list(path.removeprefix("/api/models/"))
        return self._resolve(path.lstrip("/"))

    def _find(self, name: str, revision: str) -> tuple[Repo, dict[str, bytes]] | None:
        """The repository and its files; None if an error was sent instead."""
        repo = self.hub.repos.get(name)
        allowed = self.hub.token is None or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repo is None or not (allowed or repo.gated):
            self._send(401, {"X-Error-Message": "Invalid username or password."})
        elif repo.gated and not allowed:
            self._send(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif revision in {repo.commit(known) for known in repo.revisions}:
            return repo, next(f for known, f in repo.revisions.items() if repo.commit(known) == revision)
        elif revision not in repo.revisions:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo, repo.revisions[revision]
        return None

    def _resolve(self, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        found = self._find(name, revision)
        if found is not None:
            repo, files = found
            commit = {"X-Repo-Commit": repo.commit(revision)}
            if file in files:
                self._redirect(files[file], commit)
            else:
                self._send(404, commit | {"X-Error-Code": "EntryNotFound"})

    def _redirect(self, body: bytes, commit: dict[str, str]) -> None:
        digest = hashlib.sha256(body).hexdigest()
        facts = {
            "ETag": '"of-the-redirect"',
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(body)),
            "Location": f"http://localhost:{self.hub.port}/cdn/{digest}",
        }
        self._send(302, commit | facts)

    def _list(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        found = self._find(name, revision or "main")
        if found is not None:
            repo, files = found
            names = [{"rfilename": file} for file in files]
            listing = {"id": name, "sha": repo.commit(revision or "main"), "siblings": names}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(listing).encode())

    def _send_file(self, body: bytes | None, fault: Fault | None) -> None:
        if body is None:
            return self._send(404, {})
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        asked = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, etag)
        if asked and fresh and not (fault and fault.no_ranges):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(body):
                return self._send(416, {"Content-Range": f"bytes */{len(body)}"})
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self._send(206, {"ETag": etag, "Content-Range": span}, body[start:], fault)
        return self._send(200, {"ETag": etag}, body, fault)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.drop_after is not None:
            body = body[: fault.drop_after]
            self.close_connection = True
        self.wfile.write(body)
