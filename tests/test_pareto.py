from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import CHANCE, DEVICE, failed, mixed_sweep, profile, row, scores, untrained_sweep

from lpcvc_zoo.bench.pareto import Comparison, Group, compare, comparison, pareto_front

# Few different values, so that ties of every kind come up.
POINTS = st.lists(
    st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(lambda six: six / 6)), max_size=12
)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def brute_force(points: Sequence[tuple[float, float]]) -> set[int]:
    return {index for index, point in enumerate(points) if not any(beats(other, point) for other in points)}


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    assert set(pareto_front(points)) == brute_force(points)


@given(POINTS)
def test_the_front_rises_in_both_latency_and_recall(points: list[tuple[float, float]]) -> None:
    front = [points[index] for index in pareto_front(points)]
    assert front == sorted(front)
    assert [recall for _, recall in front] == sorted(recall for _, recall in front)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(5.0, 0.5)], [0]),
        ([(5.0, 0.5), (5.0, 0.6)], [1]),
        ([(5.0, 0.5), (4.0, 0.5)], [1]),
        ([(5.0, 0.5), (5.0, 0.5), (6.0, 0.4)], [0, 1]),
        ([(9.0, 0.9), (1.0, 0.1)], [1, 0]),
    ],
)
def test_ties_go_to_the_better_one_and_equals_stay_together(
    points: list[tuple[float, float]], front: list[int]
) -> None:
    assert pareto_front(points) == front


def only(groups: list[Group]) -> Group:
    assert len(groups) == 1
    return groups[0]


def test_rows_of_one_sweep_are_one_group_by_rising_latency_with_failures_last() -> None:
    group = only(compare(mixed_sweep()))
    assert group.comparison == Comparison("lpcvc2026", "onnxruntime", DEVICE, 2, "photos")
    times = [row.total_ms for row in group.measured if row.total_ms is not None]
    assert len(times) == 20
    assert times == sorted(times)
    assert [row.error is not None for row in group.rows] == [False] * 20 + [True] * 2


@pytest.mark.parametrize(
    "other",
    [
        row(contract="lpcvc2026_sample"),
        row(target="aihub"),
        row(device="elsewhere"),
        row(image=profile("x", 5, 1, threads=1)),
        row(dataset="coco"),
        row(recall=0.5, scores=scores(0.5, dataset="coco")),
    ],
    ids=["contract", "target", "device", "threads", "dataset", "scored on another dataset"],
)
def test_rows_that_differ_in_what_matters_are_never_compared(other: object) -> None:
    assert isinstance(other, type(row()))
    assert len(compare([row(), other])) == 2


def test_datasets_of_one_name_are_compared_apart_and_named_by_what_they_held() -> None:
    one, other = ({"dataset_fingerprint": digit * 64} for digit in "12")
    rows = [row(recall=0.5, **one), row("mobileclip_s1", 0.7, **other), row("mobileclip_b", **other)]
    groups = compare([*rows, row("mobileclip_s2", 0.8, dataset="coco", scores=scores(0.8, "coco"))])
    found = {group.comparison.dataset: len(group.rows) for group in groups}
    assert found == {"photos (11111111)": 1, "photos (22222222)": 2, "coco": 1}


def test_a_row_that_does_not_say_what_its_dataset_held_stays_where_only_one_has_its_name() -> None:
    known = {"dataset_fingerprint": "1" * 64}
    assert only(compare([row(), row(recall=0.5, **known)])).comparison.dataset == "photos"


def test_precision_and_weights_may_differ_within_a_comparison() -> None:
    assert len(compare([row(), row(precision="w8a8"), row(recall=0.5)])) == 1


def test_a_row_without_measurements_joins_the_group_of_its_place() -> None:
    lost, stray = failed(dataset=None), failed(device="elsewhere")
    groups = compare([lost, stray, row()])
    assert [group.comparison.device for group in groups] == [DEVICE, "elsewhere"]
    assert groups[0].rows[1] == lost
    assert groups[1].measured == ()


def test_the_group_with_most_scores_comes_first() -> None:
    groups = compare([*untrained_sweep(), row(recall=0.5, contract="lpcvc2026_sample")])
    assert [group.comparison.contract for group in groups] == ["lpcvc2026_sample", "lpcvc2026"]


def test_untrained_models_are_never_on_the_front_scored_or_not() -> None:
    guessing = row("efficientvit_b0_text_s", scores=scores(CHANCE))
    slow = row("openai_clip_vit_b16", 0.7)
    group = only(compare([guessing, slow, *untrained_sweep()]))
    assert [group.rows[place] for place in group.front] == [slow]
    assert group.recall(guessing) is not None


def test_the_budget_applies_only_on_the_contracts_own_device() -> None:
    assert only(compare([row()])).budget_ms is None
    assert only(compare([row(device="XR2 Gen 2 (Proxy)")])).budget_ms == 35.0


def test_chance_is_known_without_scores_and_unknown_without_a_dataset() -> None:
    assert only(compare([failed(), row()])).chance == CHANCE
    assert only(compare([row(dataset=None, chance=None)])).chance is None


def test_recall_by_another_metric_does_not_count() -> None:
    every = scores(0.5)
    any_hit = every.model_copy(update={"recalls": tuple(r for r in every.recalls if r.mode == "any")})
    group = only(compare([row(recall=0.5, scores=any_hit)]))
    assert group.recall(group.rows[0]) is None
    assert group.front == ()


def test_a_contract_of_another_version_is_still_grouped() -> None:
    group = only(compare([row(contract="lpcvc2031")]))
    assert group.contract is None
    assert group.budget_ms is None
    assert comparison(group.rows[0]).contract == "lpcvc2031"
