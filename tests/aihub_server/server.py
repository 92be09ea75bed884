"""Two HTTP servers on the loopback: the API, and the object store on another origin."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from qai_hub import public_api_pb2 as pb

from aihub_server.api import Api
from aihub_server.faults import Fault, JobFault, take
from aihub_server.state import Job, Refusal, State

TOKEN = "secret-token-of-the-tests"
API = "/api/v1/"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    kind: str = "application/x-protobuf"  # exactly this: the client compares the whole header


class AIHubServer:
    """``with AIHubServer() as hub``: point the client at ``hub.url``, or take ``hub.ini(folder)``.

    ``faults`` and ``state.job_faults`` are used up one after another; ``choose`` may add one to any request.
    ``seen`` is every request as "METHOD path".
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aihub_server_")
        self.api = Api(State(Path(self._folder.name)))
        self._lock = threading.RLock()
        self.reset()
        self._servers = [self._serve("127.0.0.1", self._api), self._serve("localhost", self._store)]
        self.url, self.api.store_url = (
            f"http://{name}:{server.server_port}"
            for name, server in zip(("127.0.0.1", "localhost"), self._servers, strict=True)
        )

    def __enter__(self) -> AIHubServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._folder.cleanup()

    def reset(self) -> None:
        """Forget everything, faults too."""
        self.state = self.api.state = State(Path(tempfile.mkdtemp(dir=self._folder.name)))
        self.faults: list[Fault] = []
        self.choose: Callable[[str], Fault | None] | None = None
        self.seen: list[str] = []
        self.token = TOKEN
        self.api.profile_hook = self.api.output_hook = None

    @property
    def jobs(self) -> list[Job]:
        return list(self.state.jobs.values())

    def ini(self, folder: Path, token: str = TOKEN) -> Path:
        """A configuration file of the client that leads here."""
        path = folder / "client.ini"
        path.write_text(
            f"[api]\napi_token = {token}\napi_url = {self.url}\nweb_url = {self.url}\nverbose = False\n"
        )
        return path

    def fail_jobs(self, kind: str, reason: str, failure_type: int = 12000, times: int = 1) -> None:
        self.state.job_faults.append(JobFault(kind, reason, failure_type, times))

    def _serve(self, host: str, answer: Callable[..., Answer]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer((host, 0), _handler(self, answer))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def respond(
        self, answer: Callable[..., Answer], method: str, target: str, headers: Any, body: bytes
    ) -> Answer | None:
        """The answer to a request; None: close the connection without one."""
        line = f"{method} {target}"
        with self._lock:
            self.seen.append(line)
            fault = take(self.faults, lambda fault: fault.match in line)
            if fault is None and self.choose is not None:
                fault = self.choose(line)
        if fault is not None and fault.delay:
            threading.Event().wait(fault.delay)
        if fault is not None and not (fault.after or fault.wrong_id or fault.delay):
            return Answer(fault.status, fault.body, "application/json") if fault.status else None
        with self._lock:
            try:
                right = answer(method, target, headers, body)
            except Refusal as refusal:
                shown = Fault("", detail=str(refusal)).body
                return Answer(refusal.status, shown, "application/json")
            if fault is not None and fault.wrong_id:
                return Answer(right.status, self._of_another(right.body))
        if fault is not None and fault.after:
            return Answer(fault.status, fault.body, "application/json") if fault.status else None
        return right

    def _of_another(self, body: bytes) -> bytes:
        """The same answer with the id of an older object of that kind, where there is one."""
        answer = pb.CreateUpdateResponse.FromString(body)
        things = {"j": self.state.jobs, "m": self.state.models, "d": self.state.datasets}[answer.id[0]]
        older = [identity for identity in things if identity < answer.id]
        answer.id = older[-1] if older else answer.id
        return bytes(answer.SerializeToString())

    def _api(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        if headers.get("Authorization") != f"token {self.token}":
            raise Refusal("Invalid token.", 401)
        parts = urlsplit(target)
        if not parts.path.startswith(API):
            raise Refusal("Not found.", 404)
        message = self.api.answer(method, parts.path.removeprefix(API), parts.query, body)
        return Answer(201 if method == "POST" else 200, message.SerializeToString())

    def _store(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        key = urlsplit(target).path.strip("/")
        if method == "GET":
            found = self.state.folder / key
            if not found.is_file():
                raise Refusal("NoSuchKey", 404)
            return Answer(200, found.read_bytes(), "application/octet-stream")
        if method == "POST":  # a form; its last field is the file
            boundary = b"--" + re.search(r"boundary=([^;]+)", headers["Content-Type"])[1].encode()  # type: ignore[index]
            field = next(part for part in body.split(boundary) if b'name="file"' in part)
            body = field.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        (self.state.folder / key.replace("/", "-")).write_bytes(body)
        return Answer(200)


def _handler(hub: AIHubServer, answer: Callable[..., Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = self.headers.get("Content-Length")
            body = self.rfile.read(int(length)) if length else self._chunks()
            found = hub.respond(answer, self.command, self.path, self.headers, body)
            self.close_connection = True
            if found is None:
                return
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            self.send_header("Connection", "close")
            self.send_header("ETag", f'"{time.time_ns()}"')
            self.end_headers()
            self.wfile.write(found.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def _chunks(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return b""
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
