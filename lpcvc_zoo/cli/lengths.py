"""``--text-length auto``: the shortest text length that loses nothing on a dataset, found and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lpcvc_zoo import registry
from lpcvc_zoo.cli.shared import counting, out, print_table, table

if TYPE_CHECKING:
    from lpcvc_zoo.exporting.artifact import TextLengthChoice
    from lpcvc_zoo.retrieval.lengths import Lengths
    from lpcvc_zoo.retrieval.records import RetrievalDataset

AUTO = "auto"


def parsed(given: str | None) -> tuple[bool, int | None]:
    """Whether the length is to be found, and the length where one was given."""
    if given is None or given == AUTO:
        return given == AUTO, None
    if not given.isdecimal():
        raise typer.BadParameter(f"--text-length: expected a number of tokens or {AUTO}, got {given!r}.")
    return False, int(given)


def find(name: str, options: registry.BuildOptions, data: RetrievalDataset) -> Lengths:
    """Score the torch model at every length."""
    from lpcvc_zoo.bench.locks import busy_machine
    from lpcvc_zoo.retrieval.lengths import evaluate_lengths

    model = registry.build(name, **options)
    with counting(f"scoring {name} on {data.name} at several text lengths") as progress, busy_machine():
        return evaluate_lengths(model, data, progress=progress)


def print_choice(choice: TextLengthChoice) -> None:
    from lpcvc_zoo.retrieval.lengths import suits_npu

    shown = table(">text length", f">{choice.metric}", "")
    for length, recall in choice.recall.items():
        shown.add_row(str(length), f"{recall:.3f}", "chosen" if length == choice.text_length else "")
    print_table(shown)
    longest = choice.longest_text
    rounded = longest < choice.text_length == suits_npu(longest)
    why = (
        f"no text has more than {longest} tokens"
        + (", rounded up to what suits an NPU (lint's rule narrow-product)" if rounded else "")
        + ", and the tower is causal: the same embeddings"
        if choice.exact
        else "the shortest at which no recall is lower than at full length"
    )
    out.print(f"{choice.text_length} tokens: {why}.", style="dim")
