"""Sharing two compile jobs with the organisers, each once whatever dies between them, and the form."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lpcvc_zoo.errors import SubmissionError
from lpcvc_zoo.files import write_text
from lpcvc_zoo.submission.review import Review
from lpcvc_zoo.targets.aihub import Service

FILE, FORM = "submission.json", "form.txt"


class Submission(BaseModel):
    """What was handed in. ``shared``: job id -> when (ISO 8601, UTC), for those that are shared already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    team: str | None
    contact: str | None
    review: Review
    shared: dict[str, str] = {}

    @property
    def form(self) -> dict[str, str]:
        """The form's fields, in its order; those that nobody gave are left out."""
        review = self.review
        fields = {
            "Team": self.team,
            "Contact": self.contact,
            "Model": review.model,
            "Image encoder compile job ID": review.image.id,
            "Image encoder compile job URL": review.image.url,
            "Text encoder compile job ID": review.text.id,
            "Text encoder compile job URL": review.text.url,
            "Device": review.device,
            "Shared with": self.address,
        }
        return {label: value for label, value in fields.items() if value}


def folder_of(submission: Submission, parent: Path) -> Path:
    """Where ``share`` writes: a folder of the two jobs' own, and in it one of the address's."""
    review = submission.review
    return parent / f"{review.image.id}-{review.text.id}" / submission.address.casefold()


def check_address(address: str) -> None:
    """SubmissionError for what can be no address of e-mail."""
    if not re.fullmatch(r"[^\s@/]+@[^\s@/]+", address):
        raise SubmissionError(f"Expected an address such as name@example.org to share with, got {address!r}.")


def share(service: Service, submission: Submission, parent: Path) -> Submission:
    """Share both jobs with the address, and write the record and the form beside it.

    Run again after a stop it shares only what is not shared yet; team and contact are kept where none are
    given. SubmissionError where the address is none, the review is not ready, or where the service does not
    show the address afterwards.
    """
    check_address(submission.address)
    failed = [check for check in submission.review.checks if check.passed is False]
    if failed:
        listed = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise SubmissionError(f"Nothing was shared, because checks failed: {listed}")
    folder = folder_of(submission, parent)
    before = read(folder)
    if before is not None:
        team, contact = submission.team or before.team, submission.contact or before.contact
        kept = {"shared": before.shared, "team": team, "contact": contact}
        submission = submission.model_copy(update=kept)
    _write(submission, folder)
    for job in submission.review.jobs:
        service.share(job.id, [submission.address])
        if not service.is_shared(job.id, submission.address):
            raise SubmissionError(
                f"{job.id} was shared with {submission.address}, but {job.url} does not show it."
            )
        if job.id not in submission.shared:
            shared = {**submission.shared, job.id: datetime.now(UTC).isoformat(timespec="seconds")}
            submission = submission.model_copy(update={"shared": shared})
            _write(submission, folder)
    return submission


def sharing(service: Service, job_ids: tuple[str, ...], address: str) -> dict[str, bool]:
    """Whether each job is shared with an address now, as the service says."""
    return {job_id: service.is_shared(job_id, address) for job_id in job_ids}


def read(folder: Path) -> Submission | None:
    try:
        return Submission.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, ValueError, OSError) as error:
        raise SubmissionError(f"{folder / FILE} can't be read: {error}. Move it away.") from None


def _write(submission: Submission, folder: Path) -> None:
    try:
        write_text(folder / FILE, submission.model_dump_json(indent=2))
        lines = [f"{label}: {value}" for label, value in submission.form.items()]
        write_text(folder / FORM, "\n".join([*lines, ""]))
    except OSError as error:
        raise SubmissionError(f"{folder} can't be written: {error.strerror or error}.") from None
