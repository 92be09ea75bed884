"""Rows of a compiler's static estimate: an axis of their own, and never a millisecond."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console
from rows import MODELS, RECALLS, failed, mixed_sweep, profile, row, sha, static
from sweep_fakes import ENTRIES, FakeTarget

from lpcvc_zoo import targets
from lpcvc_zoo.bench.options import SweepOptions, make_targets
from lpcvc_zoo.bench.pareto import compare
from lpcvc_zoo.bench.plan import plan
from lpcvc_zoo.bench.progress import summary_table
from lpcvc_zoo.bench.report import figure, words
from lpcvc_zoo.bench.report.table import csv_text
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.onnxruntime import OnnxRuntimeTarget

STATIC = [static(entry, RECALLS.get(entry)) for entry in MODELS]


def test_estimates_never_share_an_axis_with_latencies() -> None:
    local, npu = compare([*STATIC, *mixed_sweep()])
    assert not local.static
    assert npu.static
    assert {row.target for row in npu.rows} == {"qnn"}
    costs = [npu.cost(row) for row in npu.measured]
    assert len(costs) == len(MODELS)
    assert costs == sorted(costs)  # type: ignore[type-var]
    assert all(row.total_ms is None for row in npu.rows)


def test_measurements_come_before_estimates_however_few() -> None:
    assert [group.static for group in compare([*STATIC, row()])] == [False, True]


def test_a_group_with_any_latency_is_about_latency() -> None:
    mixed = static(image=profile("x", 5, 1, threads=None), text=profile("y", 5, 1, threads=None))
    (group,) = compare([static("mobileclip_b"), mixed])
    assert not group.static
    assert group.measured == (mixed,)


def test_failed_rows_join_the_estimates_of_their_place() -> None:
    refused = failed(
        error="TargetError: refuses 1 of 3 nodes", target="qnn", device="XR2 Gen 2", dataset=None
    )
    (group,) = compare([refused, static()])
    assert group.measured[0].error is None
    assert group.rows[-1] == refused


def test_recall_is_borrowed_from_the_same_model_only() -> None:
    scored, estimate = row(recall=0.7), static(recall=0.7)
    rewritten = static(recall=0.7, image_sha256=sha("rewritten"), rewrites=("split_attention",))
    other = static("mobileclip_s1", 0.7)
    retrained = static(recall=0.7, image_sha256=sha("fine-tuned"), weights="mine@12345678")
    quantised = static(recall=0.7, image_sha256=sha("quantised"), precision="w8a16")
    _, group = compare([scored, estimate, rewritten, other, retrained])
    for same in (estimate, rewritten):
        found = group.recall(same)
        assert found is not None
        assert found.value == pytest.approx(0.7)
    assert group.recall(other) is None
    assert group.recall(retrained) is None
    assert [group.rows[place] for place in group.front] == [estimate, rewritten]
    estimated = next(group for group in compare([scored, quantised]) if group.static)
    assert estimated.recall(quantised) is None
    same_file = row(recall=0.6, precision="w8a16", image_sha256=sha("quantised"))
    estimated = next(group for group in compare([scored, same_file, quantised]) if group.static)
    found = estimated.recall(quantised)
    assert found is not None
    assert found.value == pytest.approx(0.6)


def test_recall_is_borrowed_from_the_same_dataset_only() -> None:
    one, other = ({"dataset_fingerprint": digit * 64} for digit in "12")
    elsewhere, here, estimate = row(recall=0.9, **other), row(recall=0.7, **one), static(recall=0.7, **one)
    for measured, borrowed in ([elsewhere], None), ([elsewhere, here], 0.7):
        (group,) = (group for group in compare([*measured, estimate]) if group.static)
        found = group.recall(estimate)
        assert (found and found.value) == borrowed


def test_an_estimate_stands_beside_the_latency_of_the_same_model_in_the_same_precision() -> None:
    measured, quantised = row(recall=0.7), row(recall=0.6, precision="w8a16", image_sha256=sha("q"))
    rewritten = static(recall=0.7, image_sha256=sha("rewritten"), rewrites=("split_attention",))
    other = static(recall=0.7, device="Snapdragon 8 Elite")
    local, *estimates = compare([measured, quantised, row("mobileclip_s1", 0.7), rewritten, other])
    assert [group.static for group in estimates] == [True, True]
    found = {(one.entry, one.precision): local.estimate(one) for one in local.rows}
    assert found.pop(("mobileclip_s0", "float")) == estimates[0].rows[0]
    assert set(found.values()) == {None}
    assert all(group.estimate(one) == one for group in estimates for one in group.rows)


def test_a_latency_without_scores_borrows_none() -> None:
    unscored = row(recall=0.7, target="aihub", device="phone", scores=None)
    _, group = compare([row(recall=0.7), unscored])
    assert group.recall(unscored) is None


def test_the_budget_in_milliseconds_never_applies_to_an_estimate() -> None:
    (group,) = compare([static(device="XR2 Gen 2 (Proxy)")])
    assert group.budget_ms is None


def test_csv_has_the_estimate_and_empty_latency_cells() -> None:
    estimate = static()
    (line,) = csv.DictReader(io.StringIO(csv_text([estimate])))
    assert estimate.image is not None
    traffic = estimate.image.traffic
    assert traffic is not None
    assert estimate.moved_mb is not None
    assert float(line["static_moved_mb"]) == pytest.approx(estimate.moved_mb)
    for name in ("dram_read_bytes", "vtcm_write_bytes", "spill_bytes", "ops", "dma_ops"):
        assert int(line[f"image_static_{name}"]) == getattr(traffic, name)
    assert not [header for header, cell in line.items() if header.endswith("_ms") and cell]
    (measured,) = csv.DictReader(io.StringIO(csv_text([row()])))
    assert not [header for header, cell in measured.items() if "static" in header and cell]


def test_options_go_to_the_targets_that_take_them() -> None:
    class Board:
        def __init__(self, device: str = "one") -> None:
            self.name, self.device = "board", device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "_factory", {"board": Board, "onnxruntime": OnnxRuntimeTarget}.__getitem__)
        patch.setattr(
            targets, "_made", lambda name, factory, given: factory(**given)
        )  # no plugin's entry point
        both = SweepOptions(targets=("board", "onnxruntime"), devices=("two",), threads=1)
        board, local = make_targets(both, Tools())
        assert board.device == "two"
        assert local.fingerprint()["threads"] == 1
        with pytest.raises(TargetError, match="no target of onnxruntime takes that option"):
            make_targets(SweepOptions(devices=("two",)), Tools())


def test_a_target_that_emulates_is_measured_but_not_scored_on() -> None:
    class Emulator(FakeTarget):
        emulates = True

    cells = plan(
        [(ENTRIES[0], "untrained")], [FakeTarget(), Emulator()], lambda *facts: "export",
        dataset="photos", evaluate_untrained=True,
    )  # fmt: skip
    assert [cell.dataset for cell in cells] == ["photos", None]


def test_half_an_estimate_is_no_sum() -> None:
    assert static(text=None).moved_mb is None
    assert static(text=profile("x", 5, 1, latency=None)).moved_mb is None


@pytest.mark.parametrize("rows", [STATIC, [*mixed_sweep(), *STATIC]], ids=["alone", "beside latencies"])
def test_the_picture_draws_estimates_on_axes_that_say_what_they_are(rows: list[ResultRow]) -> None:
    picture = figure.draw(compare(rows))
    scatter, bars = picture.axes[-2:]
    for axes in (scatter, bars):
        assert axes.get_xlabel().startswith("compiler's static estimate, MB moved")
    shown = [text.get_text() for axes in (scatter, bars) for text in axes.texts]
    assert any(text.endswith(" MB") for text in shown)
    assert not any(text.endswith(" ms") for text in shown)
    frame = picture.bbox
    for label in (bars.xaxis.label, scatter.xaxis.label):
        assert label.get_window_extent(picture.canvas.get_renderer()).x1 <= frame.x1


def test_the_precisions_of_one_model_are_joined_by_a_line_on_the_estimates_too() -> None:
    quantised = static(precision="w8a16", image=static("efficientvit_b0_text_s").image, key="other")
    scatter = figure.draw(compare([static(), quantised, static("mobileclip_s1")])).axes[0]
    (line,) = [line for line in scatter.lines if line.get_gid() == "precisions"]
    assert list(line.get_xdata()) == sorted(estimate.moved_mb for estimate in (static(), quantised))


def test_words_say_that_nothing_ran_and_where_recall_comes_from() -> None:
    _, group = compare([*mixed_sweep(), *STATIC])
    found, kept = " ".join(words.findings(group)), " ".join(words.caveats(group))
    assert "Moves least: efficientvit_b0_text_s.published" in found
    assert " ms" not in found
    assert "static estimate" in kept
    assert "Nothing ran" in kept
    assert "same model on another target" in kept
    assert "Latency on" not in kept
    (alone,) = compare(STATIC)
    assert "same model on another target" not in " ".join(words.caveats(alone))


def test_the_table_of_a_sweep_has_the_estimate_only_where_there_is_one() -> None:
    def headers(rows: list[ResultRow]) -> list[object]:
        return [column.header for column in summary_table(rows).columns]

    assert "MB moved (static)" in headers([row(), static()])
    assert "MB moved (static)" not in headers([row()])


def test_the_terminal_names_a_model_by_its_tag_and_only_what_differs_between_rows() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    elite = static(recall=0.4, device="Snapdragon 8 Elite")
    console.print(summary_table([row(recall=0.4), static(recall=0.4), elite, row("mobileclip_s1")]))
    local, npu, other_npu, alone = console.export_text().splitlines()[-4:]
    assert local.startswith("mobileclip_s0.published, onnxruntime  ")
    assert npu.startswith("mobileclip_s0.published, qnn, XR2 Gen 2  ")
    assert other_npu.startswith("mobileclip_s0.published, qnn, Snapdragon 8 Elite  ")
    assert alone.startswith("mobileclip_s1  ")
    assert "0.400 [" in local
