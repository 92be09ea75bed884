"""What the NPU rewrites are worth on a Snapdragon, by Qualcomm's offline compiler: plain against ``npu``.

    python benchmarks/npu_rewrites.py                                    a small model of each family
    python benchmarks/npu_rewrites.py --models mobileclip_s1 --precision float w8a16 --samples 0

Of each tower: whether the compiler takes every node, nodes of the ONNX graph, MB read and written in DRAM and
in the NPU's own memory (VTCM) by the compiler's static estimate, and the worst cosine to torch of
``--samples`` photos or captions as the NPU's arithmetic is emulated. Nothing here is a time. Weights are
those that come with the package, or untrained ones that are ``settled``: as they are born, they hide faults.
Each tower stands in the CSV as soon as it is measured, in place of what an earlier run said of it; what can't
be measured says why in the table alone. Needs ``lpcvc-zoo[qnn]``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from csv_record import Record
from rich.console import Console
from settled import own_kind, own_weights

from lpcvc_zoo import build, get_entry, list_models
from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.targets.qnn.target import QnnTarget

KEY = ("model", "contract", "precision", "device", "tower", "rewrites")
FACTS = (
    "weights", "samples", "compiles", "nodes", "binary MB", "DRAM MB", "VTCM MB", "cosine", "compiler",
)  # fmt: skip
SHOWN = (
    "model", "weights", "tower", "precision", "rewrites", "compiles", "nodes", "DRAM MB", "VTCM MB", "cosine",
)  # fmt: skip
Row = dict[str, Any]


def measured(
    target: QnnTarget, artifact: Artifact, tower: Tower, inputs: list[Any], wanted: list[torch.Tensor]
) -> dict[str, Any]:
    """What the compiler says of one tower, and how far its emulated embeddings are from ``wanted``."""
    made = artifact.manifest.tower(tower)
    found: dict[str, Any] = {"nodes": made.nodes}
    try:
        compiled = target.compile(artifact.path(tower), tower)
    except ZooError as error:
        return found | {"compiles": f"no: {error}"}
    profile = target.profile(compiled)
    found |= {"compiles": "yes", "binary MB": _mb(profile.file_bytes)}
    if profile.traffic is not None:
        found |= {"DRAM MB": _mb(profile.traffic.dram_bytes), "VTCM MB": _mb(profile.traffic.vtcm_bytes)}
    cosines = [
        torch.nn.functional.cosine_similarity(
            torch.from_numpy(target.infer(compiled, {made.input_name: array})[made.output_name]), embedding
        ).item()
        for array, embedding in zip(inputs, wanted, strict=True)
    ]
    return found | {"cosine": round(float(np.min(cosines)), 6) if cosines else None}  # a NaN is the worst


def samples_of(
    model: DualEncoder, count: int
) -> tuple[dict[Tower, list[Any]], dict[Tower, list[torch.Tensor]]]:
    """Bundled photos and captions under the model's contract, and the embeddings that torch gives them."""
    inputs: dict[Tower, list[Any]] = {
        "image": [model.contract.prepare_image(photo) for photo in sample_photos(count)],
        "text": [model.contract.prepare_text(caption) for caption in sample_captions(count)],
    }
    with torch.inference_mode():
        return inputs, {
            "image": [model.encode_image(array) for array in inputs["image"]],
            "text": [model.encode_text(array) for array in inputs["text"]],
        }


def _mb(count: int | None) -> float | None:
    return None if count is None else round(count / 1e6, 1)


def rows_of(name: str, given: argparse.Namespace, target: QnnTarget, console: Console) -> Iterator[Row]:
    """A row for each tower, precision and form; with ``problem`` instead of facts where there are none."""
    model: Row = {"model": name, "contract": given.contract, "device": target.device}
    try:
        model["weights"], weights = own_kind(name), own_weights(name)
        inputs, wanted = samples_of(build(name, contract=given.contract, pretrained=weights), given.samples)
    except ZooError as error:
        yield model | {"problem": error}
        return
    for precision, rewrites, tower in product(given.precision, ("none", "npu"), TOWERS):
        row = model | {"precision": precision, "rewrites": rewrites, "tower": tower}
        try:
            with console.status(f"{name}, {precision}, {rewrites}: {tower} tower"):
                artifact = cached_export(
                    name, rewrites=rewrites, precision=precision, contract=given.contract, pretrained=weights
                )
                facts = measured(target, artifact, tower, inputs[tower], wanted[tower])
        except ZooError as error:
            facts = {"problem": error}
        yield row | facts
    target.close()


def line_of(row: Row) -> str:
    """A row of the table in Markdown; a problem stands where the compiler's answer would."""
    told = {"compiles": f"not measured: {row['problem']}"} | row if "problem" in row else row
    cells = [" ".join(str(told.get(column, "")).split()).replace("|", "\\|") for column in SHOWN]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    quick = [name for name in list_models() if get_entry(name).quick]
    parser.add_argument("--models", nargs="+", default=quick)
    parser.add_argument("--contract", default="lpcvc2026_sample")
    parser.add_argument("--device", default="XR2 Gen 2")
    parser.add_argument("--precision", nargs="+", default=["float"])
    parser.add_argument("--samples", type=int, default=2, help="emulated, seconds each; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("results/npu_rewrites.csv"))
    given = parser.parse_args()
    try:
        record, target = Record(given.out, KEY, FACTS), QnnTarget(given.device)
    except ZooError as error:
        parser.error(str(error))
    console, missing = Console(), 0
    compiler = ", ".join(f"{package} {version}" for package, version in target.versions.items())
    console.print(f"{target.device}, {given.contract}, {compiler}", highlight=False)
    console.print(f"| {' | '.join(SHOWN)} |\n|{'---|' * len(SHOWN)}", highlight=False, soft_wrap=True)
    for name in given.models:
        for row in rows_of(name, given, target, console):
            console.print(line_of(row), highlight=False, markup=False, soft_wrap=True)
            if "problem" in row:
                missing += 1
            else:
                record.add([row | {"samples": given.samples, "compiler": compiler}])
    console.print(str(given.out), highlight=False, soft_wrap=True)
    if missing:
        sys.exit(f"Not measured, and not in {given.out}: {missing} of the lines above.")


if __name__ == "__main__":
    main()
