"""The parent's end of the process that runs native code: ask with a time limit, survive a crash or a hang."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lpcvc_zoo
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets._process import describe_exit

# "2026-01-01 00:00:00.0 [W:onnxruntime:, qnn_model_wrapper.cc:565 CreateQnnNode] message", in colours
_LOGGED = re.compile(r"\[[WEF]:onnxruntime:[^,\]]*, (\w+)\.cc:\d+ [^\]]*\] (.+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OF_NO_MATTER = ("File mapped weights", "EPContext encryption")


class Child:
    """A worker process. ``ask`` starts it when first needed; leaving the ``with`` block ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._unread = b""

    def ask(self, limit_s: float, **request: Any) -> dict[str, Any]:
        """One answer to one request. TargetError where the process dies, or says nothing for ``limit_s``."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        answer: dict[str, Any] = json.loads(self._line(limit_s))
        return answer

    def words(self) -> tuple[str, ...]:
        """What the compiler has said so far, warnings and errors, each once and in its own words."""
        self._log.seek(0)
        text = _COLOUR.sub("", self._log.read().decode(errors="replace"))
        said = [match[2].strip() for match in _LOGGED.finditer(text) if match[1].startswith("qnn_")]
        return tuple(dict.fromkeys(line for line in said if line and not line.startswith(_OF_NO_MATTER)))

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            package_root = str(Path(lpcvc_zoo.__file__).parents[1])
            search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
            # -P: a file of the current folder must not stand in for a library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lpcvc_zoo.targets.qnn._worker", str(os.getpid())],
                env=os.environ | {"PYTHONPATH": search},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            )  # fmt: skip
        return self._process

    def _line(self, limit_s: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        until = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self._process.kill()
                raise TargetError(f"no answer after {limit_s:g} s; stopped")
            part = os.read(pipe, 1 << 16)
            if not part:
                raise self._died()
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _died(self) -> TargetError:
        assert self._process is not None
        status = self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return TargetError(f"the process running it ended early, {describe_exit(status)}: {last[0]}")
