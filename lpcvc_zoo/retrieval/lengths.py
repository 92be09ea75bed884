"""Recall against text length: how far the text sequence can be cut before a dataset loses anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import ContractError
from lpcvc_zoo.exporting.artifact import TextLengthChoice
from lpcvc_zoo.exporting.lint.miscompiled import FEWEST_ROWS, ROW_STEP
from lpcvc_zoo.preprocess import tokenize
from lpcvc_zoo.retrieval import embed
from lpcvc_zoo.retrieval.evaluate import BATCH_SIZE, scored, torch_model
from lpcvc_zoo.retrieval.metrics import Scores
from lpcvc_zoo.retrieval.records import RetrievalDataset

if TYPE_CHECKING:
    from lpcvc_zoo.model import DualEncoder

LENGTHS = (8, 12, 16, 24, 32, 77)


@dataclass(frozen=True)
class Lengths:
    """Scores by text length, shortest first, and the length that was chosen for what reason."""

    scores: Mapping[int, Scores]
    choice: TextLengthChoice


def evaluate_lengths(
    model: DualEncoder,
    dataset: RetrievalDataset,
    *,
    lengths: Sequence[int] = LENGTHS,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> Lengths:
    """Score a torch model at several text lengths, capped at its tower's context; images are embedded once.

    Chosen is the shortest length that loses nothing. Of a causal tower, whose embeddings don't depend on what
    comes after a text, that is one which no text of the dataset exceeds: every embedding stays the same; the
    longest text's own, as ``suits_npu`` rounds it up, is tried beside ``lengths``. Of any other, one at which
    no recall is lower than at full length, for every k, both ways of counting, and both directions.
    ``progress`` is called with how many images and texts are done, and how many there are.

    Raises ContractError for a length that the tower can't take, and for untrained weights of a tower that is
    not causal, whose recall is chance; and what ``evaluate`` raises.
    """
    from lpcvc_zoo.ingraph import TextAdapter
    from lpcvc_zoo.model import TextEncoder

    contract, spec, full = model.contract, model.entry.text, model.full_text_length
    if not spec.causal and model.weights == "untrained":
        raise ContractError(
            "weights",
            "trained ones: this text tower is not causal, so recall has to tell which length loses nothing",
            "untrained ones, whose recall is chance",
            "Load some (--pretrained, pretrained=), or give a number of tokens.",
        )
    _, mask = tokenize(dataset.texts, full)
    longest = int(mask.sum(axis=1).max())
    offered = [*lengths, suits_npu(longest)] if spec.causal else lengths
    tried = sorted({full, *(length for length in offered if length < full)})
    total, done = len(dataset.images) + len(tried) * len(dataset.texts), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    images = embed.embed_tower(torch_model(model), dataset, "image", batch_size, advance)
    found: dict[int, Scores] = {}
    for length in tried:
        cut = TextEncoder(TextAdapter(contract.text, spec, length), model.text_tower)
        runs = torch_model(model, cut)
        texts = embed.embed_tower(runs, dataset, "text", batch_size, advance, images.shape[1])
        found[length] = scored(images, texts, dataset, contract)
    fits = (lambda length: length >= longest) if spec.causal else (lambda length: _as_good(found, length))
    metric = contract.metric
    choice = TextLengthChoice(
        text_length=next(length for length in tried if fits(length)),
        dataset=dataset.name,
        longest_text=longest,
        exact=spec.causal,
        metric=metric.label,
        recall={length: scores.recall(metric.k, metric.mode).value for length, scores in found.items()},
    )
    return Lengths(found, choice)


def suits_npu(length: int) -> int:
    """Rounded up to a number of rows that lint's rule narrow-product has nothing against."""
    return max(FEWEST_ROWS, -(-length // ROW_STEP) * ROW_STEP)


def _as_good(found: Mapping[int, Scores], length: int) -> bool:
    """Whether no recall is lower than at full length."""
    pairs = zip(found[length].recalls, found[max(found)].recalls, strict=True)
    return all(cut.value >= whole.value for cut, whole in pairs)
