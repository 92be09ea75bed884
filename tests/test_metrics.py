"""Metrics: values worked out by hand, an independent brute force, and ties that win nobody anything."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpcvc_zoo.errors import ContractError, DatasetError
from lpcvc_zoo.retrieval import ranks as ranks_module
from lpcvc_zoo.retrieval.bootstrap import interval, paired_bootstrap
from lpcvc_zoo.retrieval.metrics import Scores, chance, recall_at_k, score
from lpcvc_zoo.retrieval.ranks import hit_probability, inverse, rank, rank_by_chance
from lpcvc_zoo.retrieval.records import RetrievalDataset


def dataset(positives: Any, texts: int) -> RetrievalDataset:
    images = tuple(Path(f"{number}.jpg") for number in range(len(positives)))
    return RetrievalDataset(
        "made", images, tuple(f"text {number}" for number in range(texts)), tuple(map(tuple, positives))
    )


def unit(rows: Any) -> np.ndarray:
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def cloud(seed: int, count: int, dim: int = 6) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def random_positives(seed: int, queries: int, pool: int, most: int = 4) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        sorted(random.choice(pool, random.integers(1, most + 1), replace=False).tolist())
        for _ in range(queries)
    ]


def by_brute_force(similarity: np.ndarray, positives: Any, k: int, mode: str) -> float:
    """Recall@k as its mean over every order that ties allow; for small pools only."""
    total = 0.0
    for row, items in zip(similarity, positives, strict=True):
        values: list[float] = []
        for tiebreak in itertools.permutations(range(len(row))):
            order = sorted(range(len(row)), key=lambda item: (-row[item], tiebreak[item]))
            hits = len(set(order[:k]) & set(items))
            values.append(hits / len(items) if mode == "fraction" else float(hits > 0))
        total += sum(values) / len(values)
    return total / len(similarity)


# ---- recall@k


def test_fraction_and_any_hit_as_worked_out_by_hand() -> None:
    similarity = [
        [0.9, 0.8, 0.1, 0.0, 0.7],  # order 0 1 4 2 3; positives 0 and 2: one of two among the first 3
        [0.1, 0.2, 0.3, 0.4, 0.5],  # order 4 3 2 1 0; positives 0: none
        [0.5, 0.1, 0.9, 0.2, 0.8],  # order 2 4 0 3 1; positives 0 2 4: all
    ]
    positives = [[0, 2], [0], [0, 2, 4]]
    assert recall_at_k(similarity, positives, 3, mode="fraction") == pytest.approx((0.5 + 0 + 1) / 3)
    assert recall_at_k(similarity, positives, 3, mode="any") == pytest.approx(2 / 3)
    assert recall_at_k(similarity, positives, 1, mode="fraction") == pytest.approx((1 / 2 + 0 + 1 / 3) / 3)
    assert recall_at_k(similarity, positives, 5, mode="fraction") == 1.0


def test_the_whole_ground_truth_is_the_denominator_also_where_it_is_longer_than_k() -> None:
    assert recall_at_k([[3.0, 2.0, 1.0, 0.0]], [[0, 1, 2]], 2, mode="fraction") == pytest.approx(2 / 3)


def test_a_tie_counts_as_its_expected_value() -> None:
    # One item above, then four tied, two of them positive; k = 3 leaves two places for the four.
    row, positives = [[0.9, 0.5, 0.5, 0.5, 0.5, 0.1]], [[1, 4]]
    assert recall_at_k(row, positives, 3, mode="fraction") == pytest.approx(2 / 4)
    assert recall_at_k(row, positives, 3, mode="any") == pytest.approx(1 - (2 / 4) * (1 / 3))
    assert recall_at_k(row, positives, 1, mode="any") == 0.0


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=3),
    chosen=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=3, max_size=3),
    k=st.integers(1, 5),
    mode=st.sampled_from(["fraction", "any"]),
)
def test_ties_equal_the_mean_over_every_order(rows: Any, chosen: Any, k: int, mode: Any) -> None:
    similarity, positives = np.array(rows), [sorted(items) for items in chosen[: len(rows)]]
    expected = by_brute_force(similarity, positives, k, mode)
    assert recall_at_k(similarity, positives, k, mode=mode) == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["fraction", "any"])
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_model_scores_chance_wherever_its_positives_lie(mode: Any, first: bool) -> None:
    positives = [[0, 1] if first else [38, 39]] * 7
    got = recall_at_k(np.full((7, 40), 0.25), positives, 10, mode=mode)
    assert got == pytest.approx(chance(dataset(positives, 40), 10, mode))
    assert got < 0.5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"similarity": [[0.1, float("nan")]]}, "similarity"),
        ({"similarity": [0.1, 0.2]}, "similarity"),
        ({"similarity": np.zeros((0, 3))}, "similarity"),
        ({"similarity": [["a", "b"]]}, "similarity"),
        ({"k": 0}, "k"),
        ({"k": 3}, "k"),
        ({"k": 1.5}, "k"),
        ({"k": True}, "k"),
        ({"mode": "all"}, "mode"),
        ({"positives": [[0], [1]]}, "positives"),
        ({"positives": [[]]}, "positives[0]"),
        ({"positives": [[2]]}, "positives[0]"),
        ({"positives": [[-1]]}, "positives[0]"),
        ({"positives": [[1, 1]]}, "positives[0]"),
    ],
)
def test_inputs_that_make_no_sense_are_named(change: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"similarity": [[0.1, 0.2]], "positives": [[0]], "k": 1, "mode": "any"} | change
    with pytest.raises(ContractError) as caught:
        recall_at_k(given["similarity"], given["positives"], given["k"], mode=given["mode"])
    assert caught.value.field == field


# ---- ranks in blocks


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 22])
def test_blocks_of_any_size_give_what_the_whole_matrix_gives(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks_module, "_BLOCK", block)
    queries, pool, positives = cloud(1, 30), cloud(2, 50), random_positives(3, 30, 50)
    ranks = rank(queries, pool, positives)
    similarity = queries.astype(np.float64) @ pool.astype(np.float64).T
    order = np.argsort(-similarity, axis=1)
    firsts = [
        min(order[query].tolist().index(item) for item in items) + 1 for query, items in enumerate(positives)
    ]
    assert ranks.first().tolist() == firsts
    for k, mode in itertools.product((1, 5, 10), ("fraction", "any")):
        hits = [len(set(order[query, :k]) & set(items)) for query, items in enumerate(positives)]
        expected = [
            hit / len(items) if mode == "fraction" else float(hit > 0)
            for hit, items in zip(hits, positives, strict=True)
        ]
        np.testing.assert_allclose(ranks.recall(k, mode), expected)  # type: ignore[arg-type]
        assert recall_at_k(similarity, positives, k, mode=mode) == pytest.approx(np.mean(expected))  # type: ignore[arg-type]


def test_a_pool_wider_than_a_block_is_ranked_whole() -> None:
    pool = cloud(5, (1 << 16) + 500, dim=3)
    queries, positives = pool[[3, 70]], [[3], [70]]
    assert rank(queries, pool, positives).first().tolist() == [1.0, 1.0]
    similarity = queries.astype(np.float64) @ pool.astype(np.float64).T
    far = [[int(similarity[0].argmin())], [int(similarity[1].argmin())]]
    assert rank(queries, pool, far).first().min() >= len(pool) - 1


def test_equal_embeddings_tie_whatever_their_place_in_a_block() -> None:
    images, texts = np.repeat(cloud(1, 1, 512), 37, axis=0), np.repeat(cloud(2, 1, 512), 101, axis=0)
    ranks = rank(images, texts, [[query] for query in range(37)])
    assert set(ranks.tied.tolist()) == {101}
    assert ranks.recall(10, "any").mean() == pytest.approx(10 / 101)
    assert ranks.first().mean() == pytest.approx(51.0)


def test_texts_look_back_at_their_images() -> None:
    assert inverse([[0, 2], [2], [4]], 5) == ([0, 2, 4], [[0], [0, 1], [2]])


# ---- chance


def test_chance_is_exact() -> None:
    made = dataset([[0], [0, 1, 2]], 20)
    assert chance(made, 5, "fraction") == pytest.approx(5 / 20)
    hit = 1 - math.comb(17, 5) / math.comb(20, 5)
    assert chance(made, 5, "any") == pytest.approx((5 / 20 + hit) / 2)
    back = (1 - math.comb(0, 1) / math.comb(2, 1) + 1 / 2 + 1 / 2) / 3  # text 0 has both images
    assert chance(made, 1, "any", "text_to_image") == pytest.approx(back)


def test_chance_is_what_random_embeddings_score() -> None:
    positives = random_positives(4, 3000, 60)
    ranks = rank(cloud(7, 3000), cloud(8, 60), positives)
    assert ranks.recall(10, "any").mean() == pytest.approx(
        rank_by_chance(positives, 60).recall(10, "any").mean(), abs=0.02
    )


def test_a_draw_of_everything_hits_and_of_nothing_does_not() -> None:
    draws = hit_probability(np.array([9, 9, 9]), np.array([1, 1, 9]), np.array([9, 0, 1]))
    assert draws.tolist() == [1.0, 0.0, 1.0]


def test_chance_over_a_pool_smaller_than_k_is_an_error() -> None:
    with pytest.raises(DatasetError, match="recall@10 over 3 texts would be 1 for any model"):
        chance(dataset([[0]], 3), 10, "fraction")


# ---- intervals


def test_an_interval_is_that_of_resampling_queries_one_by_one() -> None:
    values = np.random.default_rng(0).choice([0.0, 1 / 3, 2 / 3, 1.0], 80)
    random = np.random.default_rng(1)
    means = [random.choice(values, values.size).mean() for _ in range(10_000)]
    assert interval(values) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)


def test_an_interval_is_the_same_every_time_and_closes_in_on_a_certain_mean() -> None:
    values = np.random.default_rng(0).random(50)
    assert interval(values) != interval(values, seed=1)
    assert interval(values) == interval(values)
    assert interval(np.full(20, 0.25)) == pytest.approx((0.25, 0.25))
    assert interval(np.array([1.0])) == (1.0, 1.0)


def test_a_paired_comparison_sees_a_small_lead_that_single_intervals_hide() -> None:
    hard = np.random.default_rng(0).random(200)
    better = np.clip(hard + 0.02, 0, None)
    found = paired_bootstrap(better, hard)
    assert found.difference == pytest.approx(0.02)
    assert (found.low, found.high, found.wins) == (pytest.approx(0.02), pytest.approx(0.02), 1.0)
    assert interval(better)[0] < interval(hard)[1]
    assert paired_bootstrap(hard, better).wins == 0.0


def test_equal_models_have_no_difference() -> None:
    values = np.array([0.0, 1.0, 0.5])
    assert paired_bootstrap(values, values).model_dump() == {
        "difference": 0, "low": 0, "high": 0, "wins": 0,
    }  # fmt: skip


def test_models_on_different_queries_are_not_compared() -> None:
    with pytest.raises(ContractError, match=r"same queries of both, got \[3\] and \[2\]"):
        paired_bootstrap(np.zeros(3), np.zeros(2))


# ---- scores


def scores(images: np.ndarray, texts: np.ndarray, positives: Any) -> Scores:
    return score(images, texts, dataset(positives, len(texts)))


def test_scores_hold_every_k_both_ways_with_interval_and_chance() -> None:
    positives = random_positives(3, 40, 60)
    got = scores(cloud(1, 40), cloud(2, 60), positives)
    assert len(got.recalls) == 3 * 2 * 2
    for recall in got.recalls:
        assert 0 <= recall.low <= recall.value <= recall.high <= 1
        assert recall.chance == pytest.approx(
            chance(dataset(positives, 60), recall.k, recall.mode, recall.direction)
        )
    similarity = cloud(1, 40).astype(np.float64) @ cloud(2, 60).astype(np.float64).T
    assert got.recall().value == pytest.approx(recall_at_k(similarity, positives, 10, mode="fraction"))
    kept, owners = inverse(positives, 60)
    back = recall_at_k(similarity.T[kept], owners, 5, mode="any")
    assert got.recall(5, "any", "text_to_image").value == pytest.approx(back)


def test_a_perfect_model_scores_one_and_ranks_first() -> None:
    same = np.eye(12, dtype=np.float32)
    got = scores(same, same, [[number] for number in range(12)])
    assert {recall.value for recall in got.recalls} == {1.0}
    assert (got.median_rank_image_to_text, got.median_rank_text_to_image) == (1.0, 1.0)


def test_a_constant_model_scores_chance_in_every_figure() -> None:
    got = scores(unit(np.ones((15, 4))), unit(np.ones((30, 4))), random_positives(1, 15, 30))
    for recall in got.recalls:
        assert recall.value == pytest.approx(recall.chance)
    assert 1 < got.median_rank_image_to_text < 16


def test_a_k_above_the_pool_is_left_out() -> None:
    got = scores(cloud(1, 3), cloud(2, 12), [[0], [1], [2]])
    assert {r.k for r in got.recalls if r.direction == "image_to_text"} == {1, 5, 10}
    assert {r.k for r in got.recalls if r.direction == "text_to_image"} == {1}
    with pytest.raises(KeyError, match=r"no recall@5 \(any, text_to_image\)"):
        got.recall(5, "any", "text_to_image")


def test_embeddings_of_another_dataset_are_refused() -> None:
    with pytest.raises(ContractError, match=r"\[2, D\] for images and \[3, D\] for texts"):
        score(cloud(1, 3), cloud(2, 3), dataset([[0], [1]], 3))
