"""The main job from the command line: export, measure and report every model, cheapest first.

    python benchmarks/sweep.py --quick             a small model of each family, a minute or two
    python benchmarks/sweep.py                     all of the default sweep
    python benchmarks/sweep.py --models 'mobileclip*,!mobileclip_b'

Run it again to go on where it stopped; what is done is not done again. It is ``lpcvc-zoo sweep`` under the
name that people look for; ``--help`` lists the options.
"""

from __future__ import annotations

import sys

from lpcvc_zoo.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
