"""A few processes that stay up and do one job at a time; one that dies costs its job, not the sweep."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from lpcvc_zoo.targets._process import describe_exit, die_with_parent

_spawn = multiprocessing.get_context("spawn")  # a fork of a process that has run torch may hang


END_TIMEOUT_S = 3.0

Job = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Done:
    """The end of one job: its place in the list given, its value, or what went wrong."""

    index: int
    value: Any = None
    error: str | None = None
    details: str | None = None  # the traceback, where there is one


class _Worker:
    def __init__(self, threads: int) -> None:
        self.connection, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=_serve, args=(theirs, threads, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def end(self) -> None:
        """Ask it to end, so that it gives back what it holds of the system; kill it if it doesn't soon."""
        self.process.terminate()
        self.process.join(END_TIMEOUT_S)
        self.process.kill()
        self.process.join()
        self.connection.close()


class Workers:
    """``count`` processes, started when first needed, each with ``threads`` threads for numeric libraries."""

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Do all jobs, ``count`` at a time; yields each one's end as it comes.

        A job is a function importable in the worker and its picklable arguments.
        """
        waiting = list(enumerate(jobs))
        while waiting or self._busy:
            while waiting and len(self._busy) < self.count:
                index, job = waiting.pop(0)
                worker = self._take()
                self._busy[index] = worker
                with suppress(OSError):  # one that died this instant shows below as the end of its pipe
                    worker.connection.send(job)
            signs: dict[Any, int] = {worker.connection: index for index, worker in self._busy.items()}
            for ready in wait(list(signs)):
                yield self._collect(signs[ready])

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in [*self._idle, *self._busy.values()]:
            worker.end()
        self._idle.clear()
        self._busy.clear()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                return worker
            worker.end()
        return _Worker(self.threads)

    def _collect(self, index: int) -> Done:
        worker = self._busy.pop(index)
        try:
            value, error, details = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            worker.connection.close()
            how = describe_exit(code if code is not None else 1)
            return Done(index, error=f"WorkerDied: the exporting process ended early, {how}")
        self._idle.append(worker)
        return Done(index, value=value, error=error, details=details)


def _serve(connection: Connection, threads: int, parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)  # read when the libraries load, which is later
    while True:
        answer: tuple[Any, str | None, str | None]
        try:
            function, arguments = connection.recv()
            answer = (function(*arguments), None, None)
        except EOFError:
            return
        except Exception as error:  # a model may fail in any way; the sweep records it
            answer = (None, f"{type(error).__name__}: {error}", traceback.format_exc())
        connection.send(answer)


def _end(number: int, frame: object) -> None:
    raise SystemExit(0)
