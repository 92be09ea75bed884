"""The main job from the command line: export, measure and report every model, cheapest first.

    python benchmarks/sweep.py --quick             a small model of each family, a minute or two
    python benchmarks/sweep.py                     all of the default sweep, and the trade-off below
    python benchmarks/sweep.py --models 'mobileclip*,!mobileclip_b'

Run it again to go on where it stopped; what is done is not done again. It is ``lpcvc-zoo sweep`` under the
name that people look for; ``--help`` lists the options. Without any, two small ones follow, of what trained
models lose by fewer tokens, by 8-bit weights and by fewer text layers; their report is in
``results/trade_off``, apart from the first's because its photos are: those that calibrate a quantised tower
aren't scored.
"""

from __future__ import annotations

import sys

from lpcvc_zoo.cli import main

# Three input sizes and another family; the other trained models lie between them. No caption has more than 16
# tokens: nothing is lost there.
TRADE_OFF = (
    "--models", "efficientnet_lite0_96*,efficientnet_lite0_128*,efficientnet_lite0_224*",
    "--models", "efficientvit_b0_text_xs",
    "--text-length", "8,12,16", "--precision", "float,w8a16", "--out", "results/trade_off",
)  # fmt: skip
# All layers are in the trade-off; float alone would be scored on other photos than it.
DEPTHS = (
    "--models", "efficientnet_lite0_224_text_xs", "--text-depth", "1,2,3", "--text-length", "16",
    "--dataset", "photos_heldout", "--out", "results/trade_off",
)  # fmt: skip


def sweep(arguments: list[str]) -> None:
    """SystemExit with the status of the sweep that failed or was stopped, after which no other follows."""
    for options in [arguments] if arguments else [(), TRADE_OFF, DEPTHS]:
        try:
            main(["sweep", *options])
        except SystemExit as ended:
            if ended.code:
                raise


if __name__ == "__main__":
    sweep(sys.argv[1:])
