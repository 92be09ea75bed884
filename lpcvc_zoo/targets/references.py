"""References to submitted jobs: small, serialisable, and all that a new process needs to collect them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lpcvc_zoo.contract import Tower
from lpcvc_zoo.errors import TargetError

T = TypeVar("T")
TicketKind = Literal["quantize", "compile", "profile", "inference"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ticket(_Record):
    """One job at a service. ``key``: hash of all that decides its result. ``after``: the job it builds on.

    ``versions``: of what the service runs it with, as far as known when it was submitted.
    """

    kind: TicketKind
    key: str
    job_id: str
    name: str
    url: str
    options: str
    after: str | None = None
    versions: dict[str, str] = {}


class _JobReference(_Record):
    target: str
    device: str
    tower: Tower
    ticket: Ticket

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        return (self.ticket,)

    @property
    def key(self) -> str:
        return self.ticket.key


class CompileReference(_JobReference):
    """A tower being compiled from the ONNX file of that hash; ``quantize``: the job that quantises it."""

    kind: Literal["compile"] = "compile"
    source_sha256: str
    quantize: Ticket | None = None

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        return (self.ticket,) if self.quantize is None else (self.quantize, self.ticket)


class ProfileReference(_JobReference):
    """A compiled tower being measured."""

    kind: Literal["profile"] = "profile"


class InferenceReference(_Record):
    """A batch being run by a compiled tower, in several jobs if it is large. ``samples``: how many each has.

    ``distinct``: how many of all samples differ, so that equal outputs can be told from a dead tower.
    """

    kind: Literal["inference"] = "inference"
    target: str
    device: str
    tower: Tower
    tickets: tuple[Ticket, ...]
    samples: tuple[int, ...]
    distinct: int

    @property
    def key(self) -> str:
        return "+".join(ticket.key for ticket in self.tickets)


Reference = CompileReference | ProfileReference | InferenceReference
_ADAPTER: TypeAdapter[Reference] = TypeAdapter(Annotated[Reference, Field(discriminator="kind")])


def parse_reference(text: str) -> Reference:
    """A reference from its ``model_dump_json()``; TargetError where the text is something else."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise TargetError(f"This is not a reference to submitted jobs: {error}") from None


class JobRunningError(TargetError):
    """A job was not finished in the time given for it. It goes on: collect it later."""


class JobFailedError(TargetError):
    """A job that the service accepted and then failed.

    ``reason``: the service's own text. ``transient``: submitting once more may well succeed (a device that
    timed out, a busy service) and this process has not done so too often yet.
    """

    def __init__(self, message: str, *, job_id: str, url: str, reason: str, transient: bool) -> None:
        super().__init__(message)
        self.job_id, self.url, self.reason, self.transient = job_id, url, reason, transient


def until_done(work: Callable[[], T]) -> T:
    """Do ``work``, which submits jobs and collects them, again where a job failed in passing."""
    while True:
        try:
            return work()
        except JobFailedError as error:
            if not error.transient:
                raise
