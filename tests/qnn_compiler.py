"""Whether Qualcomm's offline compiler can be used here, for the tests that need it."""

from __future__ import annotations

import pytest

from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.targets.qnn.target import installed_versions


def why_not() -> str | None:
    """Why it can't be used on this machine; None where it can."""
    try:
        installed_versions()
    except ZooError as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
