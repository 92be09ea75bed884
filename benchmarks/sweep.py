"""The main job from the command line: export, measure and report every model, cheapest first.

    python benchmarks/sweep.py --quick             a few small models, about two minutes
    python benchmarks/sweep.py                     all of the default sweep
    python benchmarks/sweep.py --models 'mobileclip*' '!mobileclip_b'

Run it again to go on where it stopped; what is done is not done again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from lpcvc_zoo.bench.sweep import INTERRUPTED, SweepOptions, run
from lpcvc_zoo.errors import ZooError


def parse(arguments: list[str]) -> SweepOptions:
    default = SweepOptions()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        action="extend",
        metavar="PATTERN",
        default=[],
        help="names with wildcards; name.tag for published weights; !pattern to leave out (quote them)",
    )
    add("--target", nargs="+", default=default.targets, help="where to measure (default: onnxruntime)")
    add("--device", help="a device of the target, where it has several")
    add("--contract", nargs="+", default=default.contracts, help="input contract (default: lpcvc2026)")
    add("--precision", nargs="+", default=default.precisions, help="default: float")
    add("--text-length", type=int, metavar="N", help="cut the text sequence to N tokens inside the graph")
    add("--dataset", default=default.dataset, help="what to score on (default: %(default)s)")
    add(
        "--out", type=Path, default=default.out, help="folder of the ledger and the report (default: results)"
    )
    add("--quick", action="store_true", help="only the few small models")
    add("--force", action="store_true", help="measure again what is done")
    add("--jobs", type=int, metavar="N", help="exports beside each other (default: one a CPU, four at most)")
    add("--threads", type=int, metavar="N", help="threads of the target (default: its own choice)")
    add(
        "--evaluate-untrained", action="store_true", help="score untrained models too; their recall is chance"
    )
    add("--fail-on-error", action="store_true", help="exit with 1 if any model failed")
    given = parser.parse_args(arguments)
    try:
        return SweepOptions(
            models=tuple(given.models),
            targets=tuple(given.target),
            device=given.device,
            contracts=tuple(given.contract),
            precisions=tuple(given.precision),
            text_length=given.text_length,
            dataset=given.dataset,
            out=given.out,
            quick=given.quick,
            force=given.force,
            jobs=given.jobs,
            threads=given.threads,
            evaluate_untrained=given.evaluate_untrained,
            fail_on_error=given.fail_on_error,
        )
    except ValidationError as error:
        problems = "; ".join(f"--{item['loc'][0]}: {item['msg']}" for item in error.errors())
        parser.error(problems.replace("_", "-"))


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        return run(options).exit_code(options.fail_on_error)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the sweep began, or while it concluded
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
