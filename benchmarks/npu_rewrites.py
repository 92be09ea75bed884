"""What the NPU rewrites are worth on a Snapdragon, by Qualcomm's offline compiler: plain against ``npu``.

    python benchmarks/npu_rewrites.py                                    a small model of each family
    python benchmarks/npu_rewrites.py --models mobileclip_s1 --precision float w8a16 --samples 0

Of each tower: whether the compiler takes every node, nodes of the ONNX graph, MB read and written in DRAM and
in the NPU's own memory (VTCM) by the compiler's static estimate, and the worst cosine to torch of
``--samples`` photos or captions as the NPU's arithmetic is emulated. Nothing here is a time. Needs
``lpcvc-zoo[qnn]``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lpcvc_zoo import build, get_entry, list_models
from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import ZooError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.cache import cached_export
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.targets.qnn.target import QnnTarget

COLUMNS = ("model", "tower", "precision", "rewrites", "compiles", "nodes", "DRAM MB", "VTCM MB", "cosine")


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


def rows_of(
    name: str, given: argparse.Namespace, target: QnnTarget, console: Console
) -> list[dict[str, Any]]:
    inputs, wanted = samples_of(build(name, contract=given.contract), given.samples)
    rows: list[dict[str, Any]] = []
    for precision in given.precision:
        for rewrites in ("none", "npu"):
            with console.status(f"{name}, {precision}, {rewrites}: exporting"):
                artifact = cached_export(
                    name, rewrites=rewrites, precision=precision, contract=given.contract
                )
            for tower in TOWERS:
                with console.status(f"{name}, {precision}, {rewrites}: {tower} tower"):
                    facts = measured(target, artifact, tower, inputs[tower], wanted[tower])
                rows.append(
                    {"model": name, "tower": tower, "precision": precision, "rewrites": rewrites} | facts
                )
                console.print(_line(rows[-1]), highlight=False, soft_wrap=True)
    target.close()
    return rows


def _line(row: dict[str, Any]) -> str:
    return f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |"


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
    console, target = Console(), QnnTarget(given.device)
    console.print(f"{target.device}, {given.contract}, {target.versions}", highlight=False)
    console.print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", highlight=False, soft_wrap=True)
    rows = [row for name in given.models for row in rows_of(name, given, target, console)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    console.print(str(given.out))


if __name__ == "__main__":
    main()
