"""Whether Qualcomm's offline compiler takes every model of the zoo, both towers, and what it makes of them.

    python benchmarks/qnn_coverage.py                                  all models, the cheapest first
    python benchmarks/qnn_coverage.py --models mobileclip_s1 --precision float --device "XR2 Gen 2"

One line of qnn_coverage.csv for each compilation; run again, it goes on where it was, and qnn_page.py shows
them. Lines of other weights, of fewer samples or of another version of the compiler are made again. With
``--check`` it also exports what is done already, lints it by today's rules, and compiles again what is
another file since.
A line has what the compiler says (``yes``, or ``no`` in its own words), its static estimate (never a time),
the worst cosine to torch of ``--samples`` photos or captions as the NPU's arithmetic is emulated, the worst
to the same file in ONNX Runtime, what lint finds in the export and in its activations, the start of the
tower's sha256 and the compiler's version. Weights are those that come with the package, or untrained ones
that are ``settled``, so that every branch counts.
An entry that needs a checkpoint to be built is left out but where one is given:
``--models tinyclip_auto_vit_22m_32_text_10m --pretrained laion400m --out auto.csv``.
Needs ``lpcvc-zoo[qnn]``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from csv_record import Record
from npu_rewrites import measured, samples_of
from qnn_page import DEVICES, KEY, PRECISIONS, RECORD
from rich.console import Console
from settled import own_kind, own_weights

from lpcvc_zoo import build, get_entry, list_models
from lpcvc_zoo.contract import CONTRACTS, TOWERS, Tower
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.exporting.lint import lint_tower
from lpcvc_zoo.exporting.parity import run_onnx
from lpcvc_zoo.targets.qnn.target import NEEDED, QnnTarget

FACTS = (
    "compiles", "nodes", "binary MB", "DRAM MB", "VTCM MB", "cosine", "samples", "lint", "export", "weights",
    "to ONNX Runtime", "compiler",
)  # fmt: skip
COMPILER = ", ".join(f"{package} {version}" for package, version in NEEDED.items())


def rows_of(
    name: str,
    contract: str,
    given: argparse.Namespace,
    done: Mapping[tuple[str, ...], Mapping[str, str]],
    console: Console,
) -> Iterator[dict[str, Any]]:
    """The rows of one model under one contract that are not ``done``, or no more as they would be today."""
    kind = kind_of(name, given.pretrained)

    def stands(key: tuple[str, ...]) -> bool:
        return key in done and is_current(done[key], kind, given.samples)

    def left(key: tuple[str, ...]) -> bool:
        return not stands(key) or given.check

    wanted = [
        (precision, device)
        for precision, device in product(given.precision, given.device)
        if any(left((name, contract, precision, device, tower)) for tower in TOWERS)
    ]
    if not wanted:
        return
    try:
        weights = given.pretrained or own_weights(name)
        model = build(name, contract=contract, pretrained=weights)
    except ZooError as error:
        console.print(f"{name} is left out: {error}", soft_wrap=True)
        return
    inputs, embeddings = samples_of(model, given.samples)
    del model
    lints: dict[str, str] = {}  # by the export's hash: devices share it
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
                    pretrained=weights,
                )
                export = artifact.manifest.tower(tower).sha256[:16]
                lint = lints.get(export)
                if lint is None:
                    lint = lints[export] = linted(artifact, tower)
                if stands(key) and done[key]["export"] == export:
                    if done[key]["lint"] != lint:
                        yield {**done[key], "lint": lint}
                    continue
                found = measured(target, artifact, tower, inputs[tower], embeddings[tower])
                plain = run_onnx(str(artifact.path(tower)), inputs[tower])
                made = [torch.from_numpy(each).float() for each in plain]
                taken = found["compiles"] == "yes"
                beside = measured(target, artifact, tower, inputs[tower], made)["cosine"] if taken else None
                yield row | found | {
                    "samples": given.samples, "lint": lint, "export": export,
                    "weights": kind, "to ONNX Runtime": beside, "compiler": COMPILER,
                }  # fmt: skip
            except ZooError as error:  # not exported, or not emulated: that says nothing of the compiler
                console.print(f"{' | '.join(row.values())} is left to the next run: {error}", soft_wrap=True)
        target.close()


def is_current(line: Mapping[str, str], kind: str, samples: int) -> bool:
    """Whether a line is of this kind of weights, of as many samples, and of today's compiler."""
    same = (line["weights"], line["compiler"]) == (kind, COMPILER)
    return same and int(line["samples"] or 0) >= samples


def kind_of(name: str, given: str | Literal[False]) -> str:
    """What a line says of the weights."""
    return f"given: {given}" if given else own_kind(name)


def linted(artifact: Artifact, tower: Tower) -> str:
    """The rules that find something in an export, with their level; empty where none does.

    ZooError where something could not be looked at.
    """
    report = lint_tower(artifact, tower, activations=True)
    if report.problems:
        raise ZooError(f"Lint could not look at everything: {'; '.join(report.problems)}")
    return "; ".join(sorted({f"{finding.level} {finding.rule}" for finding in report.findings}))


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
        parser.error("--pretrained needs an --out of its own: the record is of shipped and settled weights")
    console = Console()
    try:
        record = Record(given.out, KEY, FACTS)
    except ZooError as error:
        sys.exit(f"Error: {error}")
    done = record.rows()
    for name, contract in product(given.models, given.contract):
        for row in rows_of(name, contract, given, done, console):
            record.add([row])
            console.print(" | ".join(str(value) for value in row.values()), soft_wrap=True)
    console.print(str(given.out))


if __name__ == "__main__":
    main()
