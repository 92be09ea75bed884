"""Runs one sweep with the stand-ins, as a process that tests can interrupt or kill: OUT [PATTERN ...]."""

from __future__ import annotations

import sys
from pathlib import Path

import sweep_fakes

from lpcvc_zoo.bench.sweep import SweepOptions, run

if __name__ == "__main__":
    options = SweepOptions(out=Path(sys.argv[1]), models=tuple(sys.argv[2:]))
    outcome = run(
        options, tools=sweep_fakes.TOOLS, entries=sweep_fakes.ENTRIES, targets=[sweep_fakes.FakeTarget()]
    )
    sys.exit(outcome.exit_code(options.fail_on_error))
