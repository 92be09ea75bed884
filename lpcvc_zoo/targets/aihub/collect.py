"""From a reference to a result: waiting for its jobs, and fetching what they gave."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.jobs import Jobs
from lpcvc_zoo.targets.aihub.measured import to_profile
from lpcvc_zoo.targets.aihub.samples import joined
from lpcvc_zoo.targets.aihub.service import Service
from lpcvc_zoo.targets.base import Array, Compiled, Profile
from lpcvc_zoo.targets.references import (
    CompileReference,
    JobRunningError,
    ProfileReference,
    Reference,
    Ticket,
    TicketKind,
)

NAMES: dict[TicketKind, str] = {
    "quantize": "quantisation",
    "compile": "compilation",
    "profile": "profile",
    "inference": "inference",
}


def collect(
    service: Service, jobs: Jobs, reference: Reference, *, poll_s: float, timeout_s: float | None
) -> Compiled | Profile | dict[str, Array]:
    """Wait for the jobs of a reference, up to ``timeout_s`` each, and fetch their result."""
    what = f"The {{}} of the {reference.tower} tower on {reference.device}"
    for ticket in reference.tickets:
        _wait(service, jobs, ticket, what.format(NAMES[ticket.kind]), poll_s, timeout_s)
    if isinstance(reference, CompileReference):
        return Compiled(
            target=reference.target,
            device=reference.device,
            tower=reference.tower,
            reference=reference.ticket.job_id,
            source_sha256=reference.source_sha256,
        )
    if isinstance(reference, ProfileReference):
        return _profile(service, reference)
    what = what.format("inference")
    outputs = [_outputs(service, jobs, ticket, what) for ticket in reference.tickets]
    return joined(outputs, reference.samples, reference.distinct, what)


def _wait(
    service: Service, jobs: Jobs, ticket: Ticket, what: str, poll_s: float, timeout_s: float | None
) -> None:
    began = time.monotonic()
    while not (status := service.status(ticket.job_id)).finished:
        waited = time.monotonic() - began
        if timeout_s is not None and waited >= timeout_s:
            raise JobRunningError(
                f"{what} is not done after {waited:.0f} s ({status.code}). It goes on: collect it later. "
                f"Job {ticket.job_id}, see {ticket.url}"
            )
        time.sleep(poll_s)
    if not status.success:
        raise jobs.failure(ticket, what, status.message)


def _profile(service: Service, reference: ProfileReference) -> Profile:
    ticket = reference.ticket
    job = service.job(ticket.job_id)
    raw = service.call(f"fetch the profile {ticket.job_id}", job.download_profile)
    versions = {"qai-hub": version("qai-hub"), **ticket.versions}
    return to_profile(
        raw,
        target=reference.target,
        device=reference.device,
        versions=versions | ({"AI Hub": job.hub_version} if job.hub_version else {}),
        job_id=ticket.job_id,
        url=ticket.url,
    )


def _outputs(service: Service, jobs: Jobs, ticket: Ticket, what: str) -> dict[str, list[Any]]:
    job, doing = service.job(ticket.job_id), f"fetch the outputs of {ticket.job_id}"
    dataset = service.call(doing, job.get_output_dataset)
    if dataset is None:
        raise TargetError(f"{what} gave no outputs. Job {ticket.job_id}, see {ticket.url}")
    if dataset.is_expired():
        reason = "its outputs expired at the service"
        raise jobs.failed(ticket, f"{what} is lost: {reason}.", reason, retry=True)
    return dict(service.call(doing, dataset.download))
