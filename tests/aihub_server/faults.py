"""What can go wrong on purpose, once or several times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Fault:
    """What happens to a request whose ``METHOD path?query`` holds ``match`` instead of the right answer.

    Without ``status``, ``wrong_id`` or ``delay`` the connection just closes. ``after``: the request is
    carried out first, and only its answer is lost. ``wrong_id``: the answer names an older object.
    """

    match: str
    status: int | None = None
    detail: str = "injected"
    after: bool = False
    wrong_id: bool = False
    delay: float = 0.0
    times: int = 1

    @property
    def body(self) -> bytes:
        return json.dumps({"detail": self.detail}).encode()


@dataclass
class JobFault:
    """The next ``times`` jobs of a kind fail; ``failure_type`` is the service's number, 12000 a time-out."""

    kind: str
    reason: str
    failure_type: int = 12000
    times: int = 1


def take(faults: list[Any], match: Any) -> Any:
    """The first fault that matches, used up by one."""
    for fault in faults:
        if fault.times > 0 and match(fault):
            fault.times -= 1
            return fault
    return None
