"""What a child process of ours owes its parent. Standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, even by kill -9 (Linux; elsewhere nothing).

    Without it, an orphan would go on exporting or measuring beside the run that follows.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the request was made
        os._exit(1)


def describe_exit(returncode: int) -> str:
    """What an exit status means, in words: the signal's name, and what usually sends it."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    usual = {
        "SIGKILL": "most often for lack of memory",
        "SIGSEGV": "a crash in native code",
        "SIGABRT": "a crash in native code",
        "SIGILL": "an instruction this CPU lacks",
    }
    return f"killed by {name}" + (f" ({usual[name]})" if name in usual else "")
