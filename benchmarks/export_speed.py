"""How fast our exports run on this CPU, beside the same weights exported and run in the usual ways.

    python benchmarks/export_speed.py                       all five models, a quarter of an hour or so
    python benchmarks/export_speed.py --models tinyclip_vit_8m_16_text_3m --rounds 5

``plain`` is ``torch.onnx.export`` of the bare, unfused encoder, as the challenge's published sample solution
does it: image pixels at the encoder's own size and already normalised, as many ids as it has positions,
argmax pooling. ``ours`` is ``lpcvc_zoo.export`` under ``lpcvc2026_sample``: the same weights folded, with
scale, mean, std, resize and unit length inside; ``pooled early``, with the rewrite early_pool too, where that
finds something. All variants of a tower run in turn, round by round, in one process; every ratio is of two
medians of one round, each of at least three runs, so that what else the machine does meets both. With
``--threads 1`` what is measured is that thread's own time on the CPU, which a busy machine changes least.
Each tower stands in the CSV as soon as it is measured, in place of what an earlier run said of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from csv_record import Record
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lpcvc_zoo import build, export, get_contract, get_entry
from lpcvc_zoo.backbones._mct import HybridTextTower
from lpcvc_zoo.backbones._towers import TextTower
from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.data import sample_captions, sample_photos
from lpcvc_zoo.errors import ExportError, ZooError
from lpcvc_zoo.exporting.rewrites import NONE
from lpcvc_zoo.model import DualEncoder, layers_of
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
OURS, UNFUSED = "ours", "ours, unfused"
EARLY = "pooled early"
ROUND_S = 0.25  # of each variant in each round
LEAST_RUNS = 3  # in each round, however slow: of one or two there is no median
KEY = ("model", "tower", "variant", "faster_than", "threads")
FACTS = ("median_ms", "times", "p10", "p90", "rounds", "versions")
VERSIONS = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
Run = Callable[[], Any]
Clock = Callable[[], float]


class PlainText(nn.Module):
    """A text tower as open_clip runs it: an infinite mask, and pooling where the id is largest.

    Takes as many ids as the tower has positions. ExportError for a tower whose plain form is not known.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        if not isinstance(tower, TextTower | HybridTextTower):
            raise ExportError(
                "Expected a text tower whose plain form is known (TextTower or HybridTextTower), "
                f"got {type(tower).__name__}. Leave this model out."
            )
        self.tower = tower
        self.layers: Any = layers_of(tower) or tower.transformer
        self.positions = len(tower.positional_embedding)
        causal = isinstance(tower, TextTower) and tower.attn_mask is not None
        mask = torch.full((self.positions, self.positions), float("-inf")).triu(1)
        self.register_buffer("mask", mask if causal else None, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tower.token_embedding(ids) + self.tower.positional_embedding
        for layer in self.layers:
            hidden = layer(hidden) if self.mask is None else layer(hidden, attn_mask=self.mask)
        pooled = self.tower.ln_final(hidden)[torch.arange(len(ids)), ids.argmax(dim=-1)]
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


def ours(
    name: str, folder: Path, tower: Tower, array: Any, rewrites: str = NONE, **options: Any
) -> tuple[Run, int]:
    """Our export of a model, and in how many places rewrites changed the tower."""
    model = build(name, contract=CONTRACT.name, **options)
    artifact = export(model, folder, rewrites=rewrites, fused=options.get("fuse", True))
    changed = sum(effect.places for effect in artifact.manifest.tower(tower).effects)
    return onnx_run(artifact.path(tower), array), changed


def with_early(
    variant: str, name: str, folder: Path, tower: Tower, array: Any, **options: Any
) -> dict[str, Run]:
    """A variant of ours, and what it is pooled early, where that is another graph."""
    runs = {variant: ours(name, folder / variant, tower, array, **options)[0]}
    early, places = ours(name, folder / f"{variant}, {EARLY}", tower, array, "early_pool", **options)
    return runs | ({f"{variant}, {EARLY}": early} if places else {})


def image_runs(name: str, encoder: nn.Module, folder: Path) -> dict[str, Run]:
    entry = get_entry(name)
    pixels = torch.rand(1, 3, entry.image_size, entry.image_size)
    photo = CONTRACT.prepare_image(sample_photos(1)[0])
    runs = {"plain": plain_run(encoder, pixels, folder), **with_early(OURS, name, folder, "image", photo)}
    if entry.family == "mobileclip":
        runs[UNFUSED], _ = ours(name, folder / "unfused", "image", photo, fuse=False)
    return runs | {
        "torch": torch_run(encoder, pixels),
        COMPILED: torch_run(torch.compile(encoder), pixels),
    }


def text_runs(name: str, encoder: PlainText, folder: Path, length: int) -> dict[str, Run]:
    ids = CONTRACT.prepare_text(sample_captions(1))
    wide = torch.from_numpy(ids[:, : encoder.positions].astype(np.int64))
    return {
        "plain": plain_run(encoder, wide, folder),
        **with_early(OURS, name, folder, "text", ids),
        **with_early(f"{OURS}, {length} tokens", name, folder, "text", ids, text_length=length),
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
        pairs.append((OURS, UNFUSED))
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
                "threads": torch.get_num_threads(),
                "versions": VERSIONS,
            }
        )
    return rows


def model_rows(
    name: str, given: argparse.Namespace, length: int, console: Console
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each tower, as soon as it is measured; what can't be is an error before any is."""
    towers = untrained(get_entry(name))
    text = PlainText(towers.text).eval()
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    for tower in TOWERS:
        with console.status(f"{name}, {tower} tower"), tempfile.TemporaryDirectory() as scratch:
            if tower == "image":
                runs = image_runs(name, towers.image, Path(scratch))
            else:
                runs = text_runs(name, text, Path(scratch), length)
            if given.no_compile:
                del runs[COMPILED]
            found = measure(runs, given.rounds, clock)
        yield rows_of(name, tower, found)
    causal = "causal" if get_entry(name).text.causal else "not causal"
    console.print(f"{name}: cut to {length} tokens, worst cosine {worst_cosine(name, length):.7f} ({causal})")


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
    try:
        record = Record(given.out, KEY, FACTS)
    except ZooError as error:
        parser.error(str(error))
    torch.backends.mha.set_fastpath_enabled(False)  # it can't be exported
    torch.set_num_threads(given.threads)
    console, length, failed = Console(), caption_tokens(), []
    table = Table("model, tower", "variant", "median ms", "times faster (p10 to p90)", box=None)
    for name in given.models:
        try:
            for rows in model_rows(name, given, length, console):
                record.add(rows)
                for row in rows:
                    ratio = f"{row['times']:.2f} ({row['p10']:.2f} to {row['p90']:.2f})"
                    what, ms = f"{name}, {row['tower']}", f"{row['median_ms']:.1f}"
                    table.add_row(what, row["variant"], ms, f"{ratio} than {row['faster_than']}")
        except Exception as error:  # torch's exporter and compiler raise anything
            failed.append(name)
            console.print(f"{name}: {type(error).__name__}: {error}", markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"{given.out}; {VERSIONS}, {torch.get_num_threads()} threads")
    if failed:
        sys.exit(f"Not measured whole: {', '.join(failed)}")


if __name__ == "__main__":
    main()
