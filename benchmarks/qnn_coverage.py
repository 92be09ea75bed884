"""Whether Qualcomm's offline compiler takes every model of the zoo, both towers, and what it makes of them.

    python benchmarks/qnn_coverage.py                                  all models, the cheapest first
    python benchmarks/qnn_coverage.py --models mobileclip_s1 --precision float --device "XR2 Gen 2"

One line of qnn_coverage.csv for each compilation; run again, it goes on where it was, and qnn_page.py shows
the last line of each. With ``--check`` it also exports what is done already, and compiles again what is
another file since; a line without a hash can't be compared, and has to be taken out to be made again. A
line has what the compiler says (``yes``, or ``no`` in its own words), its static estimate (never a time),
the worst cosine to torch of ``--samples`` photos or captions as the NPU's arithmetic is emulated, what lint
finds in the export, and the start of the tower's sha256, which is empty in lines older than this column.
Weights are untrained. An entry that needs a checkpoint to be built is left out but where one is given:
``--models tinyclip_auto_vit_22m_32_text_10m --pretrained laion400m --out auto.csv``.
Needs ``lpcvc-zoo[qnn]``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from npu_rewrites import measured, samples_of
from qnn_page import DEVICES, KEY, PRECISIONS, RECORD
from rich.console import Console

from lpcvc_zoo import build, get_entry, list_models
from lpcvc_zoo.contract import CONTRACTS, TOWERS, Tower
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.exporting.lint import lint_tower
from lpcvc_zoo.targets.qnn.target import QnnTarget

FACTS = ("compiles", "nodes", "binary MB", "DRAM MB", "VTCM MB", "cosine", "samples", "lint", "export")


def rows_of(
    name: str, contract: str, given: argparse.Namespace, done: dict[tuple[str, ...], str], console: Console
) -> Iterator[dict[str, Any]]:
    """The rows of one model under one contract that are not done yet, or no more of today's export.

    ``done``: the start of the sha256 that each row has, empty where it has none.
    """

    def left(key: tuple[str, ...]) -> bool:
        return key not in done or bool(given.check and done[key])

    wanted = [
        (precision, device)
        for precision, device in product(given.precision, given.device)
        if any(left((name, contract, precision, device, tower)) for tower in TOWERS)
    ]
    if not wanted:
        return
    try:
        model = build(name, contract=contract, pretrained=given.pretrained)
    except ZooError as error:
        console.print(f"{name} is left out: {error}", soft_wrap=True)
        return
    inputs, embeddings = samples_of(model, given.samples)
    del model
    for precision, device in wanted:
        target = QnnTarget(device)
        for tower in TOWERS:
            row = dict(zip(KEY, (name, contract, precision, device, tower), strict=True))
            if not left(key := tuple(row.values())):
                continue
            try:
                artifact = cached_export(
                    name,
                    rewrites="npu",
                    precision=precision,
                    contract=contract,
                    pretrained=given.pretrained,
                )
                export = artifact.manifest.tower(tower).sha256[:16]
                if done.get(key) == export:
                    continue
                found = measured(target, artifact, tower, inputs[tower], embeddings[tower])
                yield row | found | {
                    "samples": given.samples, "lint": linted(artifact, tower), "export": export
                }  # fmt: skip
            except ZooError as error:  # not exported, or not emulated: that says nothing of the compiler
                console.print(f"{' | '.join(row.values())} is left to the next run: {error}", soft_wrap=True)
        target.close()


def linted(artifact: Artifact, tower: Tower) -> str:
    """The rules that find something in an export, with their level; empty where none does."""
    findings = lint_tower(artifact, tower).findings
    return "; ".join(sorted({f"{finding.level} {finding.rule}" for finding in findings}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cheapest_first = sorted(list_models(), key=lambda name: get_entry(name).cost)
    parser.add_argument("--models", nargs="+", default=cheapest_first)
    parser.add_argument("--contract", nargs="+", default=list(CONTRACTS))
    parser.add_argument("--precision", nargs="+", default=PRECISIONS)
    parser.add_argument("--device", nargs="+", default=DEVICES)
    parser.add_argument("--pretrained", default=False, metavar="WEIGHTS", help="a tag or file")
    parser.add_argument("--samples", type=int, default=1, help="emulated, seconds each; 0 for none")
    parser.add_argument("--check", action="store_true", help="make lines again whose export has changed")
    parser.add_argument("--out", type=Path, default=RECORD)
    given = parser.parse_args()
    if given.pretrained and given.out == RECORD:
        parser.error("--pretrained needs an --out of its own: the record is of untrained weights")
    console = Console()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    done: dict[tuple[str, ...], str] = {}
    columns: Sequence[str] = (*KEY, *FACTS)
    if given.out.is_file():
        with given.out.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            done = {tuple(row[column] for column in KEY): row.get("export") or "" for row in rows}
            columns = rows.fieldnames or columns  # of a file made before a column was added
    with given.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        for name, contract in product(given.models, given.contract):
            for row in rows_of(name, contract, given, done, console):
                writer.writerow(row)
                file.flush()
                console.print(" | ".join(str(value) for value in row.values()), soft_wrap=True)
    console.print(str(given.out))


if __name__ == "__main__":
    main()
