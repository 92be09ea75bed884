"""The report in plain sentences: what was compared, what came out, and what it does not say."""

from __future__ import annotations

from collections.abc import Sequence

from lpcvc_zoo.bench.pareto import Group
from lpcvc_zoo.bench.report.curves import AXES, curves
from lpcvc_zoo.bench.report.view import milliseconds, names, parts, unit
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import Tower

OTHER: dict[Tower, Tower] = {"image": "text", "text": "image"}


def headline(groups: Sequence[Group]) -> str:
    """One line on top of everything."""
    groups = [group for group in groups if _known(group)]
    total = len({(row.entry, row.weights) for group in groups for row in _known(group)})
    if not total:
        return "No model has been measured yet"
    scored = sum(_scored(group, row) for group in groups for row in group.measured)
    models = _count(total, "model")
    if all(group.static for group in groups):
        return f"Static cost of {models} on an NPU, by its compiler"
    also = ", and static cost on an NPU" if any(group.static for group in groups) else ""
    return (
        f"Recall against latency of {models}{also}"
        if scored
        else f"Latency of {models}, recall not measured{also}"
    )


def setting(group: Group) -> str:
    """What is compared with what: device, target, threads, contract, dataset, metric."""
    own = group.comparison
    facts = [own.device, own.target]
    if own.threads is not None:
        facts.append(_count(own.threads, "thread"))
    facts.append(f"contract {own.contract}")
    facts.append(f"dataset {own.dataset}" if own.dataset else "no dataset")
    facts.append(group.metric.label)
    return " · ".join(facts)


def findings(group: Group) -> list[str]:
    """What the measurements say, best first; nothing where nothing was measured."""
    measured = group.measured
    called = dict(zip(map(id, group.rows), names(group.rows), strict=True))
    halves = [
        f"{called[id(row)]} ({tower} {milliseconds(cost)} {unit(group)}, {OTHER[tower]} missing)"
        for row, tower, cost in group.halves
    ]
    alone = [f"Of one tower alone, so without a sum: {', '.join(halves)}."] if halves else []
    if not measured:
        return alone or ["Nothing was measured here."]
    fastest, slowest = measured[0], measured[-1]
    least, most = ("Moves least", "Moves most") if group.static else ("Fastest", "Slowest")
    said = [f"{least}: {called[id(fastest)]}, {_cost(group, fastest)}."]
    if slowest is not fastest:
        said[0] += f" {most}: {called[id(slowest)]}, {_cost(group, slowest)}."
    front = [group.rows[place] for place in group.front]
    if front:
        best = front[-1]
        recall = group.recall(best)
        assert recall is not None
        said.insert(
            0,
            f"Best recall: {called[id(best)]}, {recall.value:.3f} (95 % interval {recall.low:.3f} to "
            f"{recall.high:.3f}) at {_cost(group, best)}.",
        )
        if len(front) > 1:
            cheap = "moves as little and is as good" if group.static else "is both as fast and as good"
            said.append(
                f"{len(front)} trained models are worth a choice: no other {cheap}. They "
                f"reach from {called[id(front[0])]} to {called[id(best)]}."
            )
    said += [curve.sentence for axis in AXES for curve in curves(group, axis)]
    if group.budget_ms is not None:
        within = sum((row.total_ms or 0.0) <= group.budget_ms for row in measured)
        said.append(
            f"{within} of {len(measured)} stay within the budget of {group.budget_ms:g} ms for one image and "
            "one text."
        )
    preprocessing = sorted(row.preprocess_ms for row in measured if row.preprocess_ms is not None)
    if preprocessing:
        span = " to ".join(
            dict.fromkeys(milliseconds(edge) for edge in (preprocessing[0], preprocessing[-1]))
        )
        said.append(
            f"{span} ms of every image latency is the contract's preprocessing inside the graph; it is "
            "the same work for all models of one image size."
        )
    return said + alone


def caveats(group: Group) -> list[str]:
    """What a reader must know before drawing conclusions."""
    said = []
    unscored = [row for row in group.measured if not row.trained and not _scored(group, row)]
    if unscored:
        who = "All models here are" if len(unscored) == len(group.measured) else f"{len(unscored)} models are"
        if group.chance is None:
            level = "their recall is unknown and not drawn."
        else:
            level = (
                f"they are drawn hollow at the chance level of {group.chance:.3f}, which is what ranking at "
                "random gives. That is computed, not measured, and says nothing about the architecture."
            )
        said.append(f"{who} untrained: {level}")
    if any(not row.trained and _scored(group, row) for row in group.measured):
        said.append("Hollow models are untrained: their recall was measured, but is chance up to noise.")
    scores = next((row.scores for row in group.measured if row.scores), None)
    if scores is not None:
        said.append(
            f"Recall was measured on {group.comparison.dataset}: {_count(scores.images, 'image')}, "
            f"{_count(scores.texts, 'text')}. Intervals are over these images; another dataset, the hidden "
            "test set above all, gives other numbers."
        )
    if group.static:
        said.append(
            "MB moved is what one image and one text read and write in the NPU's own memory, as the compiler "
            "adds it up: a static estimate that ranks models on one chip. Nothing ran, and no time follows "
            "from it."
        )
        if any(_scored(group, row) for row in group.measured):
            said.append("Recall is that of the same model on another target of this report.")
    elif _known(group) and group.contract and group.contract.device != group.comparison.device:
        said.append(
            f"Latency on {group.comparison.device} is not latency on {group.contract.device}: order and "
            "ratios change from one device to another, and most between a CPU and an NPU."
        )
        if group.contract.latency_budget_ms is not None:
            said[-1] += (
                f" The contract's budget of {group.contract.latency_budget_ms:g} ms is not drawn: it does "
                "not apply here."
            )
    return said + failures(group)


def failures(group: Group) -> list[str]:
    """Which models failed, in a sentence; none where none did."""
    failed = [name for row, name in zip(group.rows, names(group.rows), strict=True) if row.error is not None]
    return [f"{_count(len(failed), 'model')} failed: {', '.join(failed)}."] if failed else []


def _known(group: Group) -> list[ResultRow]:
    """The rows of which both towers were measured, or one."""
    return [*group.measured, *(row for row, _, _ in group.halves)]


def _scored(group: Group, row: ResultRow) -> bool:
    return group.recall(row) is not None


def _cost(group: Group, row: ResultRow) -> str:
    split = parts(row)
    assert split is not None
    image, preprocessing, text = split
    return (
        f"{milliseconds(sum(split))} {unit(group)} "
        f"(image {milliseconds(image + preprocessing)}, text {milliseconds(text)})"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
