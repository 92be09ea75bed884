"""What can go wrong with a service far away, told apart by what to do next."""

from __future__ import annotations

from lpcvc_zoo.errors import TargetError

DEPENDENCY = 2003  # the job that was to make this one's model failed
TIMEOUT, THROTTLED = 12000, 12102


class ServiceUnavailableError(TargetError):
    """The service did not answer, or was too busy, until patience ended. Nothing submitted is lost."""


class NotFoundError(TargetError):
    """The service has no such thing, or not for this account."""


def may_pass(failure_type: int) -> bool:
    """Whether a failure of that ``JobFailureType`` is the service's or the device's, not the model's."""
    if failure_type == DEPENDENCY:
        return False
    return 1000 <= failure_type < 3000 or failure_type in (TIMEOUT, THROTTLED) or failure_type >= 20000
