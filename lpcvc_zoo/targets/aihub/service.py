"""The official client with what it lacks: one way to wait for a busy service, and jobs created only once.

The client repeats most calls by itself, but not all of them, and it repeats the one call that must not be:
a job whose acceptance was lost on the way back would be created a second time.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.config import load_config
from lpcvc_zoo.targets.aihub.devices import DeviceInfo
from lpcvc_zoo.targets.aihub.failures import NotFoundError, ServiceUnavailableError
from lpcvc_zoo.targets.aihub.source import Specs

if TYPE_CHECKING:
    import qai_hub

PAGE = 50
CLOCKS_APART_S = 86_400  # how far this machine's clock and the service's may disagree
_CLIENT_SETTING = threading.RLock()


@dataclass(frozen=True)
class Patience:
    """How often to try a call, and how long to wait in between: ``first_s``, doubled up to ``most_s``."""

    tries: int = 6
    first_s: float = 2.0
    most_s: float = 60.0

    def pause(self, failures: int) -> None:
        """Wait after so many failures in a row; randomly shorter, so that many clients don't come at once."""
        time.sleep(min(self.most_s, self.first_s * 2 ** (failures - 1)) * random.uniform(0.5, 1.0))


def open_service(profile: str | None = None, patience: Patience | None = None) -> Service:
    """The service that the client's own configuration file names; ``profile``: ``~/.qai_hub/PROFILE.ini``.

    MissingExtraError where the client is not installed, TargetError where its configuration is unusable.
    Nothing is sent.
    """
    return Service(load_config(profile), patience or Patience())


class Service:
    """The client's calls, patient with what passes and clear about what does not.

    Every method raises ServiceUnavailableError where patience ended, NotFoundError for what is not there, and
    TargetError with the service's own text where it refused. The token is in no text.
    """

    def __init__(self, config: qai_hub.client.ClientConfig, patience: Patience) -> None:
        import qai_hub

        self.client: Any = qai_hub.Client(config=config)  # never the global one, which keeps its first config
        self.api_url: str = config.api_url
        self.patience = patience
        self._token: str = config.api_token
        self._jobs: dict[str, Any] = {}

    @property
    def host(self) -> str:
        return urlsplit(self.api_url).netloc

    def url(self, job_id: str) -> str:
        """The page of a job."""
        return urljoin(str(self.client.config.web_url), f"jobs/{job_id}/")

    def call(self, doing: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the client until it answers. ``doing``: for the error, "upload a model"."""
        for failures in range(1, self.patience.tries + 1):
            try:
                return function(*args, **kwargs)
            except Exception as error:
                problem = self.problem(doing, error)
                last = failures == self.patience.tries
                if last or not isinstance(problem, ServiceUnavailableError):
                    raise problem from None  # the cause may hold headers, and headers the token
            self.patience.pause(failures)
        raise AssertionError("the loop ends by returning or raising")

    def create_job(self, name: str, since: float, submit: Callable[[], Any], *, uncertain: bool) -> str:
        """Create the job of that name exactly once; returns its id.

        ``submit`` is a ``submit_*`` call of the client under that name. ``since``: when it may first have
        been tried, in seconds since the epoch; ``uncertain``: it was tried, and how that ended is unknown.
        """
        doing = f"submit the job {name!r}"
        if uncertain and (found := self.find_job(name, since)):
            return found
        for failures in range(1, self.patience.tries + 1):
            problem: TargetError | None = None
            try:
                with _client_repeats_nothing():
                    job_id: str = submit().job_id
            except Exception as error:
                problem = self.problem(doing, error)
                if not isinstance(problem, ServiceUnavailableError):
                    raise problem from None
            else:
                if self.job(job_id).name == name:
                    return job_id
                self._jobs.pop(job_id)  # an id of somebody else's job: the service mixed up its answers
            self.patience.pause(failures)
            if found := self.find_job(name, since):
                return found
            if failures == self.patience.tries and problem is not None:
                raise problem
        raise TargetError(f"Could not {doing}: {self.api_url} answers with the ids of other jobs.")

    def find_job(self, name: str, since: float) -> str | None:
        """The id of the first job of that name created after ``since``, None where there is none."""
        from qai_hub import public_rest_api

        found: str | None = None
        offset = 0
        while True:
            # Not the client's own list: that leaves out the kinds of jobs it does not know.
            answer = self.call(
                "list the jobs", public_rest_api.get_job_summary_list, self.client.config, offset, PAGE
            )
            kinds = [(job, job.WhichOneof("job")) for job in answer.job_summaries]
            page = [getattr(job, kind) for job, kind in kinds if kind]  # None: a kind newer than the client
            for job in page:  # newest first
                if job.name == name:
                    found = job.job_id
            if not kinds or (page and page[-1].creation_time.seconds < since - CLOCKS_APART_S):
                return found
            offset += PAGE

    def job(self, job_id: str) -> Any:
        """The client's object for a job."""
        if job_id not in self._jobs:
            self._jobs[job_id] = self.call(f"look up the job {job_id}", self.client.get_job, job_id)
        return self._jobs[job_id]

    def status(self, job_id: str) -> Any:
        """The client's ``JobStatus`` of a job, asked for now unless it is known to be final."""
        return self.call(f"ask for the state of the job {job_id}", self.job(job_id).get_status)

    def failure_type(self, job_id: str) -> int:
        """The service's number for why a job failed; 0 where it does not say."""
        from qai_hub import public_rest_api

        job = self.call(
            f"ask why the job {job_id} failed", public_rest_api.get_job, self.client.config, job_id
        )
        return int(job.failure_type)

    def compiled_inputs(self, job_id: str) -> Specs:
        """What the model takes that a compile job made: name -> shape and dtype."""
        from qai_hub import api_utils, public_rest_api

        job = self.call(
            f"ask what {job_id} compiled", public_rest_api.get_job, self.client.config, job_id
        ).compile_job
        return dict(api_utils.tensor_type_list_pb_to_list_shapes(job.target_tensor_type_list))

    def greet(self) -> None:
        """Ask who we are, once: raises unless the service answers and takes this token and client."""
        from qai_hub import public_rest_api

        with _client_repeats_nothing():
            self.call("reach AI Hub", self.client._api_call, public_rest_api.get_auth_user)

    def devices(self) -> tuple[DeviceInfo, ...]:
        found = self.call("list the devices", self.client.get_devices)
        return tuple(
            DeviceInfo(name=device.name, os=device.os, attributes=tuple(device.attributes))
            for device in found
        )

    def qairt_versions(self) -> dict[str, tuple[str, ...]]:
        """QAIRT versions on offer and their tags: ``{"2.31": ("default",), "2.34": ("latest",)}``."""
        found = self.call("list the frameworks", self.client.get_frameworks)
        return {item.api_version: tuple(item.api_tags) for item in found if item.name.upper() == "QAIRT"}

    def share(self, job_id: str, emails: Sequence[str]) -> None:
        """Share a job and all that belongs to it with these addresses; those who have it keep it."""
        missing = sorted(email for email in set(emails) if not self.is_shared(job_id, email))
        if missing:
            self.call(f"share the job {job_id}", self.job(job_id).modify_sharing, add_emails=missing)

    def unshare(self, job_id: str, emails: Sequence[str]) -> None:
        """Stop sharing a job with these addresses."""
        given = {email.casefold() for email in emails}
        present = sorted(email for email in self.shared_with(job_id) if email.casefold() in given)
        if present:
            self.call(f"unshare the job {job_id}", self.job(job_id).modify_sharing, delete_emails=present)

    def shared_with(self, job_id: str) -> tuple[str, ...]:
        """The addresses a job is shared with, as the service says now."""
        return tuple(self.call(f"ask with whom the job {job_id} is shared", self.job(job_id).get_sharing))

    def is_shared(self, job_id: str, email: str) -> bool:
        """Whether a job is shared with that address; the service may keep it in small letters."""
        return email.casefold() in map(str.casefold, self.shared_with(job_id))

    def problem(self, doing: str, error: Exception) -> TargetError:
        """An exception of the client as ours; anything it does not raise on purpose is raised as it is."""
        import requests
        from google.protobuf.message import DecodeError
        from qai_hub import client as hub
        from qai_hub.public_rest_api import APIException

        if isinstance(error, TargetError):
            return error
        text = self._clean(str(error))
        passing = (hub.RateLimitedError, requests.RequestException, DecodeError, AssertionError)
        # requests' errors that are ValueErrors too are of the address or a header, but for garbled answers
        final = isinstance(error, ValueError) and not isinstance(error, requests.JSONDecodeError)
        if not final and (
            isinstance(error, passing)
            # a bare one is the client's own word that an answer makes no sense to it, and will never
            or (isinstance(error, hub.InternalError) and error.__cause__ is not None)
            or (isinstance(error, APIException) and (error.status_code or 0) in {429, *range(500, 600)})
            or (isinstance(error, OSError) and error.errno is None)  # h5py: a file that is cut off
        ):
            return ServiceUnavailableError(
                f"Could not {doing}: {self.api_url} gave no usable answer in {_times(self.patience.tries)}. "
                f"The last problem: {text} Nothing that was submitted is lost: run the same again later."
            )
        refused = NotFoundError if _status(error) == 404 else TargetError
        if isinstance(error, (hub.Error, APIException, ValueError, OSError)):
            return refused(f"Could not {doing}: {text}")
        raise error

    def _clean(self, text: str) -> str:
        """The client draws boxes around its messages; and no service shall make us print the token."""
        text = re.sub(r"[─-╿]|(?m:^\|)|(?m:\|$)", " ", text)
        for shown in (self._token, repr(self._token)[1:-1]):  # messages may quote it with escapes
            text = text.replace(shown, "(token)")
        return " ".join(text.split())


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an answer that the client made an exception, and sometimes another one of that."""
    while error is not None and not hasattr(error, "status_code"):
        error = error.__cause__ or error.__context__
    status: int | None = getattr(error, "status_code", None)
    return status


def _times(tries: int) -> str:
    return "one try" if tries == 1 else f"{tries} tries"


@contextmanager
def _client_repeats_nothing() -> Iterator[None]:
    """Let the client try each call once: it would also repeat the creation of a job whose answer was lost."""
    from qai_hub.util import session

    with _CLIENT_SETTING:
        usual = session.MAX_RETRIES
        session.MAX_RETRIES = 0
        try:
            yield
        finally:
            session.MAX_RETRIES = usual
