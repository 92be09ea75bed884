"""One key, one job: submitted once, whatever dies on the way, and once more only where that may help."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lpcvc_zoo.contract import Tower
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.failures import NotFoundError, may_pass
from lpcvc_zoo.targets.aihub.service import Service
from lpcvc_zoo.targets.aihub.store import JobRecord, Store
from lpcvc_zoo.targets.aihub.uploads import KEPT, name_of
from lpcvc_zoo.targets.references import JobFailedError, Ticket, TicketKind

ATTEMPTS = 3  # of one key in one process, where devices or the service fail


def job_key(kind: str, facts: dict[str, Any]) -> str:
    """Identifies a job by all that decides its result."""
    return hashlib.sha256(json.dumps({"kind": kind, **facts}, sort_keys=True).encode()).hexdigest()


class Jobs:
    """Jobs of one service, remembered in a store."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store
        self._failures: Counter[str] = Counter()

    def submit(
        self,
        kind: TicketKind,
        tower: Tower,
        key: str,
        options: str,
        prepare: Callable[[str], Callable[[], Any]],
        *,
        after: str | None = None,
        versions: dict[str, str] | None = None,
    ) -> Ticket:
        """The job of that key: the one submitted before, or a new one.

        ``prepare`` is given the job's name, uploads what the job needs, and returns the one call that
        submits it. Raises what that raises; a job that may or may not have been accepted is found later.
        TargetError where the one submitted before is not there: it may be another account's, and then sending
        it again would make this account's the one that is remembered.
        """
        with self._store.held("jobs", key):
            before = self._store.get("jobs", key, JobRecord)
            if before is None or (before.failed is not None and before.retry):
                attempt = before.attempt + 1 if before else 1
                again = (str(attempt),) if attempt > 1 else ()
                name = name_of(kind, tower, key[:KEPT], *again)
                record, uncertain = JobRecord(name=name, since=time.time(), attempt=attempt), False
            else:
                record, uncertain = before, before.job_id is None
            if record.job_id is not None:
                self._look_up(record.job_id, key)
            else:
                send = prepare(record.name)
                self._store.put("jobs", key, record)
                # Whatever this raises, the job may be there: the record makes the next submission look.
                job_id = self._service.create_job(record.name, record.since, send, uncertain=uncertain)
                record = record.model_copy(update={"job_id": job_id})
                self._store.put("jobs", key, record)
            assert record.job_id is not None
            return Ticket(
                kind=kind,
                key=key,
                job_id=record.job_id,
                name=record.name,
                url=self._service.url(record.job_id),
                options=options,
                after=after,
                versions=versions or {},
            )

    def _look_up(self, job_id: str, key: str) -> None:
        try:
            self._service.job(job_id)
        except NotFoundError as error:
            raise TargetError(
                f"{error} {self._store.path('jobs', key)} remembers that it was sent. If another account "
                "sent it, go back to that one; else remove that file to send the job again."
            ) from None

    def failure(self, ticket: Ticket, what: str, reason: str | None) -> JobFailedError:
        """The error of a failed job; remembered, so that submitting again knows whether to try again."""
        kind = self._service.failure_type(ticket.job_id)
        reason = reason or "the service gives no reason"
        if ticket.after is not None and (earlier := self._service.status(ticket.after)).failure:
            reason = f"{reason} (the job {ticket.after} before it failed: {earlier.message})"
        return self.failed(ticket, f"{what} failed: {reason}", reason, retry=may_pass(kind))

    def failed(self, ticket: Ticket, message: str, reason: str, *, retry: bool) -> JobFailedError:
        """Note that a job's result can't be had; ``retry``: another job of the same key may give it."""
        self._failures[ticket.key] += (
            1  # whoever asks about the same job again and again is to come to an end
        )
        with self._store.held("jobs", ticket.key):
            record = self._store.get("jobs", ticket.key, JobRecord)
            if record is not None and record.job_id == ticket.job_id and record.failed is None:
                self._store.put(
                    "jobs", ticket.key, record.model_copy(update={"failed": reason, "retry": retry})
                )
        options = ticket.options or "none"
        return JobFailedError(
            f"{message} Job {ticket.job_id}, options: {options}, see {ticket.url}",
            job_id=ticket.job_id,
            url=ticket.url,
            reason=reason,
            transient=retry and self._failures[ticket.key] < ATTEMPTS,
        )
