"""How fast our exports run on this CPU, beside the same weights exported and run in the usual ways.

    python benchmarks/export_speed.py                       all five models, a quarter of an hour or so
    python benchmarks/export_speed.py --models tinyclip_vit_8m_16_text_3m --rounds 5

``plain`` is ``torch.onnx.export`` of the bare, unfused encoder, as the challenge's published sample solution
does it: image pixels at the encoder's own size and already normalised, 77 ids, argmax pooling. ``ours`` is
``lpcvc_zoo.export`` under ``lpcvc2026_sample``: the same weights folded, with scale, mean, std, resize and
unit length inside. All variants of a tower run in turn, round by round, in one process; every ratio is of two
medians of one round, each of at least three runs, so that what else the machine does meets both. With
``--threads 1`` what is measured is that thread's own time on the CPU, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lpcvc_zoo import build, export, get_contract, get_entry
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.registry import untrained
from lpcvc_zoo.retrieval.datasets import load_dataset

MODELS = (
    "tinyclip_vit_8m_16_text_3m",
    "mobileclip_s1",
    "openai_clip_vit_b32",
    "openai_clip_vit_b16",
    "mobileclip_b",
)
CONTRACT = get_contract("lpcvc2026_sample")
COMPILED = "torch.compile"
UNFUSED = "ours, unfused"
ROUND_S = 0.25  # of each variant in each round
LEAST_RUNS = 3  # in each round, however slow: of one or two there is no median
Run = Callable[[], Any]
Clock = Callable[[], float]


class PlainText(nn.Module):
    """A text tower as open_clip runs it: an infinite mask, and pooling where the id is largest."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        size = tower.positional_embedding.shape[0]
        mask = None if tower.attn_mask is None else torch.full((size, size), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tower.token_embedding(ids) + self.tower.positional_embedding
        hidden = self.tower.ln_final(self.tower.transformer(hidden, attn_mask=self.mask))
        pooled = hidden[torch.arange(len(ids)), ids.argmax(dim=-1)]
        return pooled @ self.tower.text_projection


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_run(path: Path, array: Any) -> Run:
    made = session(path)
    feed = {made.get_inputs()[0].name: array}
    return lambda: made.run(None, feed)


def plain_run(module: nn.Module, example: Tensor, folder: Path) -> Run:
    path = folder / "plain.onnx"
    torch.onnx.export(module, (example,), path, dynamo=True, verbose=False, external_data=False)
    return onnx_run(path, example.numpy())


def torch_run(module: Any, example: Tensor) -> Run:
    def once() -> Any:
        with torch.inference_mode():
            return module(example)

    return once


def ours(name: str, folder: Path, tower: str, array: Any, **options: Any) -> Run:
    artifact = export(build(name, contract=CONTRACT.name, **options), folder, fused=options.get("fuse", True))
    return onnx_run(artifact.path("image" if tower == "image" else "text"), array)


def image_runs(name: str, folder: Path) -> dict[str, Run]:
    entry = get_entry(name)
    encoder = untrained(entry).image
    pixels = torch.rand(1, 3, entry.image_size, entry.image_size)
    photo = CONTRACT.prepare_image(sample_photos(1)[0])
    runs = {"plain": plain_run(encoder, pixels, folder), "ours": ours(name, folder / "ours", "image", photo)}
    if entry.family == "mobileclip":
        runs[UNFUSED] = ours(name, folder / "unfused", "image", photo, fuse=False)
    return runs | {
        "torch": torch_run(encoder, pixels),
        COMPILED: torch_run(torch.compile(encoder), pixels),
    }


def text_runs(name: str, folder: Path, length: int) -> dict[str, Run]:
    encoder = PlainText(untrained(get_entry(name)).text).eval()
    ids = CONTRACT.prepare_text(sample_captions(1))
    wide = torch.from_numpy(ids.astype(np.int64))
    return {
        "plain": plain_run(encoder, wide, folder),
        "ours": ours(name, folder / "ours", "text", ids),
        f"ours, {length} tokens": ours(name, folder / "sliced", "text", ids, text_length=length),
        "torch": torch_run(encoder, wide),
        COMPILED: torch_run(torch.compile(encoder), wide),
    }


def measure(runs: dict[str, Run], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Median milliseconds of each variant in each round; the order turns, so that none is always first."""
    for run in runs.values():
        for _ in range(3):
            run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times: list[float] = []
            ends = clock() + ROUND_S
            while len(times) < LEAST_RUNS or clock() < ends:
                began = clock()
                runs[name]()
                times.append(1e3 * (clock() - began))
            found[name].append(statistics.median(times))
    return found


def caption_tokens() -> int:
    """Tokens of the longest bundled caption, its start and end included."""
    ids = CONTRACT.prepare_text(list(load_dataset("photos").texts))
    return int((ids == ids[0, -1]).argmax(axis=1).max()) + 1


def worst_cosine(name: str, length: int) -> float:
    """Of all bundled captions, whole and cut to ``length`` tokens."""
    texts = torch.from_numpy(CONTRACT.prepare_text(list(load_dataset("photos").texts)))
    embeddings: list[Tensor] = []
    for option in (None, length):
        model: DualEncoder = build(name, contract=CONTRACT.name, text_length=option)
        with torch.inference_mode():
            embeddings.append(torch.cat([model.encode_text(part) for part in texts.split(32)]))
    return float((embeddings[0] * embeddings[1]).sum(dim=1).min())


def rows_of(name: str, tower: str, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Every variant beside the plain export; what is folded also beside the same export unfused."""
    pairs = [(variant, "plain") for variant in found]
    if UNFUSED in found:
        pairs.append(("ours", UNFUSED))
    rows: list[dict[str, Any]] = []
    for variant, other in pairs:
        ratios = [theirs / own for theirs, own in zip(found[other], found[variant], strict=True)]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        rows.append(
            {
                "model": name,
                "tower": tower,
                "variant": variant,
                "median_ms": round(statistics.median(found[variant]), 3),
                "faster_than": other,
                "times": round(float(middle), 3),
                "p10": round(float(low), 3),
                "p90": round(float(high), 3),
                "rounds": len(ratios),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--out", type=Path, default=Path("results/export_speed.csv"))
    given = parser.parse_args()
    torch.backends.mha.set_fastpath_enabled(False)  # it can't be exported
    torch.set_num_threads(given.threads)
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    console = Console()
    length = caption_tokens()
    rows: list[dict[str, Any]] = []
    table = Table("model, tower", "variant", "median ms", "times faster (p10 to p90)", box=None)
    for name in given.models:
        for tower in ("image", "text"):
            with console.status(f"{name}, {tower} tower"), tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                runs = image_runs(name, folder) if tower == "image" else text_runs(name, folder, length)
                if given.no_compile:
                    del runs[COMPILED]
                new = rows_of(name, tower, measure(runs, given.rounds, clock))
            rows += new
            for row in new:
                ratio = f"{row['times']:.2f} ({row['p10']:.2f} to {row['p90']:.2f}) than {row['faster_than']}"
                table.add_row(f"{name}, {tower}", row["variant"], f"{row['median_ms']:.1f}", ratio)
        causal = "causal" if get_entry(name).text.causal else "not causal"
        console.print(
            f"{name}: cut to {length} tokens, worst cosine {worst_cosine(name, length):.7f} ({causal})"
        )
    console.print(table)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    console.print(
        f"{given.out}; torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
