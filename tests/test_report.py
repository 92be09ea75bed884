from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rows import CHANCE, MODELS, RECALLS, failed, mixed_sweep, profile, row, scores, static, untrained_sweep

from lpcvc_zoo.bench.outcome import REPORT_FILES
from lpcvc_zoo.bench.pareto import compare
from lpcvc_zoo.bench.report import figure, words, write_report
from lpcvc_zoo.bench.report.curves import AXES, MOST_CURVES, Axis, curves, curves_svg, draw_curves
from lpcvc_zoo.bench.report.labels import Box, Label, place, spread
from lpcvc_zoo.bench.report.page import page
from lpcvc_zoo.bench.report.table import csv_text, json_text
from lpcvc_zoo.bench.report.view import height, milliseconds, names, parts, same_but_precision, styles
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.exporting.rewrites import resolve

PHONE = "XR2 Gen 2 (Proxy)"


def on_phone() -> list[ResultRow]:
    return [
        row(entry, recall, target="aihub", device=PHONE, preprocess_ms=None,
            image=profile(entry, MODELS[entry][1] / 9, 10, threads=None),
            text=profile(entry, MODELS[entry][2] / 9, 10, threads=None))
        for entry, recall in RECALLS.items()
    ]  # fmt: skip


SWEEPS: dict[str, list[ResultRow]] = {
    "nothing": [],
    "only failures": [failed(), failed("mobileclip_s1")],
    "one": [row()],
    "untrained": untrained_sweep(),
    "mixed": mixed_sweep(),
    "no dataset": [row(dataset=None, chance=None)],
    "several places": [*mixed_sweep(), *on_phone(), row(contract="lpcvc2026_sample"), row(device="d")],
    "half measured": [row(text=None), row(image=None, error="TargetError: no")],
    "no latency kept": [row(image=profile("x", 1, 1, latency=None))],
    "recall zero": [row(recall=0.0)],
    "static": [*mixed_sweep(), *(static(entry, RECALLS.get(entry)) for entry in MODELS)],
    "very many": [row(recall=0.5 + n / 500, entry="mobileclip_s0", text_length=n + 2) for n in range(120)],
}


@pytest.fixture(params=SWEEPS, ids=str)
def sweep(request: pytest.FixtureRequest) -> list[ResultRow]:
    return SWEEPS[request.param]


def table(rows: list[ResultRow]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(rows))))


# The files


def test_a_report_is_five_files_whatever_the_rows(sweep: list[ResultRow], tmp_path: Path) -> None:
    write_report(sweep, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(REPORT_FILES)
    Image.open(tmp_path / "out/pareto.png").verify()
    ElementTree.parse(tmp_path / "out/pareto.svg")
    assert len(json.loads((tmp_path / "out/results.json").read_text())["rows"]) == len(sweep)
    with (tmp_path / "out/results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(sweep)


def test_a_report_that_cannot_be_drawn_leaves_the_last_picture_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report([row()], tmp_path)
    before = (tmp_path / "pareto.png").read_bytes()

    def disk_full(self: Any, path: Path, **more: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_report([row(), row("mobileclip_s1")], tmp_path)
    assert (tmp_path / "pareto.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(REPORT_FILES)


# CSV and JSON


def test_csv_says_everything_of_a_row_with_units_in_the_headers() -> None:
    measured = row(recall=0.7)
    (line,) = table([measured])
    assert line["entry"] == "mobileclip_s0"
    assert line["weights"] == measured.weights
    assert line["trained"] == "yes"
    assert line["threads"] == "2"
    assert measured.image is not None
    assert measured.image.latency is not None
    for header, value in {
        "image_latency_median_ms": measured.image.latency.median_ms,
        "image_latency_p10_ms": measured.image.latency.p10_ms,
        "image_latency_p90_ms": measured.image.latency.p90_ms,
        "total_latency_median_ms": measured.total_ms,
        "preprocess_ms": 12.4,
        "image_file_bytes": measured.image.file_bytes,
        "image_peak_memory_bytes": measured.image.peak_memory_bytes,
        "image_iterations": 31,
        "image_warmup_iterations": 3,
        "image_params_m": 11.4,
        "text_gmacs": 1.0,
        "recall": 0.7,
        "recall_low_95": 0.7 * 0.92,
        "recall_high_95": 0.7 * 1.07,
        "recall_by_chance": CHANCE,
        "recall_at_5_any_text_to_image": 0.7 * 0.85,
        "recall_at_1_fraction_image_to_text_high_95": 0.7 * 0.45 * 1.07,
        "median_rank_image_to_text": 3,
        "image_parity_cosine": 0.9999998,
    }.items():
        assert float(line[header]) == pytest.approx(value, rel=1e-6), header
    assert line["recall_definition"] == "recall@10 (fractional), image to text"
    assert line["text_sha256"] == measured.text_sha256
    assert line["versions"] == "lpcvc-zoo 0.1.0; onnxruntime 1.32.0; torch 2.11.0"
    assert line["error"] == ""


def test_csv_keeps_job_ids_and_rewrites() -> None:
    remote = profile("x", 5, 1, job_id="jp0abc", job_url="https://hub.example/jp0abc")
    (line,) = table([row(image=remote, rewrites=("tanh_gelu", "split_qkv"))])
    assert (line["image_job_id"], line["image_job_url"]) == ("jp0abc", "https://hub.example/jp0abc")
    assert line["rewrites"] == "tanh_gelu; split_qkv"


def test_what_was_not_measured_is_an_empty_cell_never_zero() -> None:
    known = {"entry", "family", "weights", "trained", "contract", "target", "device", "precision", "error"}
    facts = (
        "text_length text_depth image_size embed_dim image_params text_params image_gmacs text_gmacs "
        "dataset chance"
    )
    (line,) = table([failed(versions={}, **dict.fromkeys(facts.split()))])
    filled = {header for header, cell in line.items() if cell}
    assert filled == known | {"recall_definition", "created_utc", "key"}
    assert line["error"] == "ExportError: no such operator"
    assert not any(cell == "0" for cell in line.values())


def test_chance_is_not_reported_as_recall() -> None:
    (line,) = table([row()])
    assert line["recall"] == line["recall_low_95"] == ""
    assert float(line["recall_by_chance"]) == pytest.approx(CHANCE)


def test_a_measured_zero_is_kept() -> None:
    (line,) = table([row(recall=0.0)])
    assert line["recall"] == "0"


def test_texts_with_commas_quotes_and_newlines_survive_csv() -> None:
    nasty = 'Error: "a, b"\nline two; <img onerror=alert(1)>, ünïcode 🦊'
    assert table([failed(error=nasty)])[0]["error"] == nasty


def test_json_gives_back_the_very_rows(sweep: list[ResultRow]) -> None:
    document = json.loads(json_text(sweep, "2026-03-01T12:00:00+00:00"))
    assert document["schema"] == "lpcvc_zoo.results/1"
    assert document["generated"] == "2026-03-01T12:00:00+00:00"
    assert [ResultRow.model_validate(facts) for facts in document["rows"]] == sweep


# What charts show


def test_an_untrained_model_stands_at_chance_a_trained_one_only_where_it_was_measured() -> None:
    unscored = row(weights="published@1")
    (group,) = compare([row(), unscored, row(recall=0.6)])
    assert height(group, row()) == CHANCE
    assert height(group, unscored) is None
    assert height(group, row(recall=0.6)) == 0.6


def test_parts_add_up_to_the_total_even_where_preprocessing_measured_slower_than_the_tower() -> None:
    for measured in (row(), row(preprocess_ms=None), row(preprocess_ms=999.0)):
        split = parts(measured)
        assert split is not None
        assert min(split) >= 0
        assert sum(split) == pytest.approx(measured.total_ms)
    assert parts(row(text=None)) is None


def test_names_are_short_until_two_rows_share_one() -> None:
    assert names([row(), row(recall=0.5), row(precision="w8a8")]) == [
        "mobileclip_s0",
        "mobileclip_s0.published",
        "mobileclip_s0, w8a8",
    ]
    assert names([row(text_length=77), row(text_length=16), row("mobileclip_s1")]) == [
        "mobileclip_s0, 77 tokens",
        "mobileclip_s0, 16 tokens",
        "mobileclip_s1",
    ]
    assert names([row(text_depth=12), row(text_depth=1), row("mobileclip_s1", text_depth=12)]) == [
        "mobileclip_s0, text depth 12",
        "mobileclip_s0, text depth 1",
        "mobileclip_s1",
    ]
    assert len(set(names([row(), row(device="d"), row(contract="lpcvc2026_sample")]))) == 3
    assert names([row(image_size=128, weights="a@1"), row(weights="a@1234567890"), row(weights="a@2")]) == [
        "mobileclip_s0.a, 128 px",
        "mobileclip_s0.a, 224 px, weights 12345678",
        "mobileclip_s0.a, 224 px, weights 2",
    ]
    rewritten = [row(), row(rewrites=resolve("npu")), row(rewrites=("a", "b"))]
    assert names(rewritten) == ["mobileclip_s0", "mobileclip_s0, npu", "mobileclip_s0, a+b"]
    made_by_others = [row(image_sha256=None, text_sha256=sha256) for sha256 in ("1" * 64, "2" * 64)]
    assert names(made_by_others) == ["mobileclip_s0, files 11111111", "mobileclip_s0, files 22222222"]


LENGTH, DEPTH = AXES


def cut_down(axis: Axis, recalls: dict[int, float], **more: Any) -> list[ResultRow]:
    return [row(recall=recall, **{axis.field: cut}, **more) for cut, recall in recalls.items()]


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.field)
def test_recall_over_a_cut_is_told_and_drawn_where_a_model_has_several(axis) -> None:
    cut = cut_down(axis, {12: 0.41, 1: 0.3, 3: 0.41})
    one, another = ({axis.field: number} for number in (12, 3))
    others = [row("mobileclip_s1", 0.5, **one), row("mobileclip_s1", 0.4, precision="w8a8", **another)]
    (group,) = compare([*cut, *others, row(**{axis.field: 1})])
    (curve,) = curves(group, axis)
    assert curve.name == "mobileclip_s0.published"
    assert [(number, recall.value) for number, recall in curve.points] == [(1, 0.3), (3, 0.41), (12, 0.41)]
    assert "0.300 at 1, 0.410 at 3, 0.410 at 12." in said([*cut, *others])
    (svg,) = curves_svg([group], axis)
    assert svg == curves_svg([group], axis)[0]
    ElementTree.fromstring(svg)
    shown = page([group], "now")
    assert '<section class="charts" id="curves">' in shown
    assert [other.title in shown for other in AXES] == [other is axis for other in AXES]


def test_a_model_cut_both_ways_has_a_curve_for_each_length_and_each_depth() -> None:
    rows = [
        *cut_down(LENGTH, {8: 0.2, 77: 0.3}, text_depth=1),
        *cut_down(LENGTH, {8: 0.4, 77: 0.5}, text_depth=4),
    ]
    (group,) = compare(rows)
    found = {
        axis: {curve.name: [recall.value for _, recall in curve.points] for curve in curves(group, axis)}
        for axis in AXES
    }
    name = "mobileclip_s0.published"
    assert found[LENGTH] == {f"{name}, text depth 1": [0.2, 0.3], f"{name}, text depth 4": [0.4, 0.5]}
    assert found[DEPTH] == {f"{name}, 8 tokens": [0.2, 0.4], f"{name}, 77 tokens": [0.3, 0.5]}


@pytest.mark.parametrize(("models", "more"), [(12, ""), (14, " (2 more in What came out)")])
def test_curves_that_are_not_drawn_are_counted_below_the_picture(models: int, more: str) -> None:
    rows = [
        one.model_copy(update={"entry": f"model_{number}"})
        for number in range(models)
        for one in cut_down(LENGTH, {8: 0.2, 77: 0.3})
    ]
    (group,) = compare(rows)
    picture = draw_curves(group, LENGTH)
    assert picture is not None
    assert len(picture.axes[0].lines) == MOST_CURVES + 1  # the chance level
    assert picture.axes[0].get_xlabel() == f"text length, tokens{more}"
    assert all(f"that model_{number}.published's text is cut to" in said(rows) for number in range(models))


def test_without_several_cuts_there_is_no_curve() -> None:
    more = {"text_length": 8, "text_depth": 1}
    rows = [*mixed_sweep(), row(**more), static(recall=0.4, **more)]
    assert [curves_svg(compare(rows), axis) for axis in AXES] == [[], []]
    assert 'id="curves"' not in page(compare(rows), "now")


def test_families_differ_in_colour_and_marker() -> None:
    looks = styles(row(family=f"family{number}") for number in range(50))
    assert len({(look.colour, look.marker) for look in looks.values()}) == 50


@pytest.mark.parametrize(
    ("value", "text"), [(0.421, "0.42"), (0.999, "1.0"), (5.55, "5.5"), (9.96, "10"), (124.4, "124")]
)
def test_milliseconds_are_shown_with_the_digits_that_matter(value: float, text: str) -> None:
    assert milliseconds(value) == text


# Words


def said(rows: list[ResultRow]) -> str:
    groups = compare(rows)
    lines = [words.headline(groups)]
    for group in groups:
        lines += [words.setting(group), *words.findings(group), *words.caveats(group)]
    return "\n".join(lines)


def test_words_say_that_untrained_recall_is_chance_and_not_measured() -> None:
    text = said(untrained_sweep())
    assert "recall not measured" in text
    assert "All models here are untrained" in text
    assert "chance level of 0.021" in text
    assert "computed, not measured" in text
    assert "Best recall" not in text


def test_words_name_the_best_the_fastest_the_failures_and_the_limits() -> None:
    text = said(mixed_sweep())
    assert "Best recall: mobileclip2_s2.published, 0.810" in text
    assert "Fastest: efficientvit_b0_text_s.published" in text
    assert "6 models are untrained" in text
    assert "163 images, 474 texts" in text
    assert "2 models failed: mobileclip2_b, openai_clip_rn50." in text
    assert f"is not latency on {PHONE}" in text
    assert "2 threads" in text


@pytest.mark.parametrize(
    ("half", "alone", "head"),
    [
        (
            row(image=None, weights="adopted@1"),
            "text 22 ms, image missing",
            "Latency of 1 model, recall not measured",
        ),
        (
            static(text=None),
            "image 611 MB, text missing",
            "Static cost of 1 model on an NPU, by its compiler",
        ),
    ],
)
def test_half_a_pair_was_measured_and_its_missing_tower_is_told(
    half: ResultRow, alone: str, head: str
) -> None:
    missing = f"Of one tower alone, so without a sum: {half.model} ({alone})."
    (group,) = compare([half])
    assert words.findings(group) == [missing]
    assert words.headline([group]).startswith(head)
    assert "has its numbers" in " ".join(text.get_text() for text in texts(drawn([half])))
    whole = row("mobileclip_s1") if half.image is None else static("mobileclip_s1")
    (group,) = compare([half, whole])
    assert words.findings(group)[-1] == missing
    assert "of 2 models" in words.headline([group])


def test_half_a_pair_stands_with_what_it_may_be_compared_with() -> None:
    half = row(image=None, text=profile("x", 5, 1, threads=1))
    assert [group.rows for group in compare([row(), row("mobileclip_s1"), half])][1:] == [(half,)]


def test_words_speak_of_the_budget_only_on_the_contracts_device() -> None:
    assert "14 of 14 stay within the budget of 35 ms" in said(on_phone())
    assert "stay within" not in said(mixed_sweep())
    assert "is not latency on" not in said(on_phone())


def test_a_scored_untrained_model_is_said_to_be_measured_chance() -> None:
    assert "recall was measured, but is chance" in said([row(scores=scores(0.02))])


# The picture


def drawn(rows: list[ResultRow]) -> Any:
    picture = figure.draw(compare(rows))
    picture.draw_without_rendering()  # ticks and axis titles find their places
    return picture


def texts(picture: Any) -> Iterator[Any]:
    yield from picture.texts
    for axes in picture.axes:
        yield from axes.texts
        yield axes.xaxis.label
        yield axes.yaxis.label
        yield from axes.get_yticklabels()


def box(picture: Any, text: Any) -> Box:
    return Box(*(float(edge) for edge in text.get_window_extent(picture.canvas.get_renderer()).extents))


def labels(picture: Any) -> list[Any]:
    return [text for axes in picture.axes for text in axes.texts if text.get_gid() == "name"]


def test_the_precisions_of_one_model_are_joined_by_a_line_and_of_no_other() -> None:
    rows = [
        row("mobileclip_s0", 0.7),
        # Quantised for an NPU, a model is rewritten where its float is not.
        row("mobileclip_s0", 0.6, precision="w8a8", image=profile("q", 30, 11.4), key="q", rewrites=("npu",)),
        row("mobileclip_s1", 0.74),
        row("mobileclip_s1", 0.74, rewrites=("npu",), key="another way in one precision"),
    ]
    lines = [line for line in drawn(rows).axes[0].lines if line.get_gid() == "precisions"]
    assert [len(line.get_xdata()) for line in lines] == [2]
    assert sorted(lines[0].get_ydata()) == pytest.approx(
        sorted(scored.scores.recall(10).value for scored in rows[:2])
    )
    assert not [line for line in drawn(rows[1:]).axes[0].lines if line.get_gid() == "precisions"]


def test_another_image_size_is_another_model_and_no_precision_of_the_same() -> None:
    (group,) = compare([row(recall=0.5), row(recall=0.4, image_size=128, precision="w8a8")])
    assert not same_but_precision(group.rows)


def test_the_same_rows_give_the_same_picture_to_the_byte(tmp_path: Path) -> None:
    for number in (1, 2):
        picture = drawn(mixed_sweep())
        for kind in ("png", "svg"):
            figure.save(picture, tmp_path / f"{number}.{kind}", kind)  # type: ignore[arg-type]
    for kind in ("png", "svg"):
        one, two = (hashlib.sha256((tmp_path / f"{n}.{kind}").read_bytes()).hexdigest() for n in (1, 2))
        assert one == two, kind


def test_drawing_leaves_matplotlibs_global_state_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawn(mixed_sweep())
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in __import__("sys").modules or not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize(
    "rows", [mixed_sweep(), untrained_sweep(), on_phone()], ids=["mixed", "untrained", "phone"]
)
def test_no_label_covers_another_and_none_leaves_the_picture(rows: list[ResultRow]) -> None:
    picture = drawn(rows)
    boxes = [(text.get_text(), box(picture, text)) for text in labels(picture)]
    assert boxes
    for (one, first), (other, second) in combinations(boxes, 2):
        assert not first.meets(second), (one, other)
    frame = Box(0, 0, picture.bbox.width, picture.bbox.height)
    for text in texts(picture):
        if text.get_text():
            assert frame.holds(box(picture, text)), text.get_text()


@pytest.mark.parametrize("rows", [mixed_sweep(), on_phone()], ids=["mixed", "phone"])
def test_every_model_on_the_front_is_named(rows: list[ResultRow]) -> None:
    group = compare(rows)[0]
    named = {text.get_text() for text in labels(drawn(rows))}
    called = names(group.rows)
    assert group.front
    assert {called[place] for place in group.front} <= named


def test_where_nothing_is_scored_every_model_is_named_and_stands_hollow_on_the_chance_line() -> None:
    picture = drawn(untrained_sweep())
    assert {text.get_text() for text in labels(picture)} == set(MODELS)
    markers = [line for line in picture.axes[0].lines if line.get_marker() not in ("None", "", None)]
    assert len(markers) == len(MODELS)
    assert {line.get_markerfacecolor() for line in markers} == {"white"}
    assert {float(line.get_ydata()[0]) for line in markers} == {CHANCE}
    said = " ".join(text.get_text() for text in texts(picture))
    assert "chance level 0.021: computed, not measured" in said


def test_trained_models_are_filled_and_untrained_hollow() -> None:
    picture = drawn(mixed_sweep())
    faces = [
        line.get_markerfacecolor()
        for line in picture.axes[0].lines
        if line.get_marker() not in ("None", "", None)
    ]
    assert faces.count("white") == 6
    assert len(faces) == 20


def test_the_budget_line_is_drawn_only_on_the_contracts_device() -> None:
    def words_of(rows: list[ResultRow]) -> str:
        return " ".join(text.get_text() for text in drawn(rows).axes[0].texts)

    assert "budget 35 ms" in words_of(on_phone())
    assert "budget" not in words_of(mixed_sweep())


def test_each_comparison_gets_panels_of_its_own_and_the_rest_is_named() -> None:
    rows = [*SWEEPS["several places"], row(device="one more")]
    picture = drawn(rows)
    assert len(picture.axes) == 2 * figure.MOST_GROUPS
    said = " ".join(text.get_text() for text in picture.texts)
    assert "Not drawn here" in said
    assert PHONE in said


def test_bars_show_every_models_total() -> None:
    picture = drawn(mixed_sweep())
    ticks = [label.get_text() for label in picture.axes[1].get_yticklabels()]
    (group,) = compare(mixed_sweep())
    assert ticks == names(group.measured)
    numbers = {text.get_text() for text in picture.axes[1].texts}
    assert {f"{milliseconds(row.total_ms or 0)} ms" for row in group.measured} <= numbers


def test_very_long_names_of_bars_do_not_reach_into_the_scatter() -> None:
    entry, precision = "tinyclip_vit_40m_32_text_19m", "image=w8a16+text=float"
    picture = drawn([row(entry, 0.6, text_depth=depth, precision=precision) for depth in (1, 2, 6)])
    scatter, bars = picture.axes
    names_of = bars.get_yticklabels()
    assert len(names_of) == 3
    assert all(len(label.get_text()) > 70 for label in names_of)
    assert min(box(picture, label).left for label in names_of) > scatter.bbox.x1


def test_a_dollar_sign_in_a_name_is_only_a_dollar_sign(tmp_path: Path) -> None:
    write_report([row(family="$x^$ $\\frac", device="$$ cpu $")], tmp_path)


# Placing labels


BOXES = st.builds(
    lambda x, y, w, h: Label(x, y, w, h, reach=9, must=True),
    st.floats(0, 400), st.floats(0, 300), st.floats(5, 120), st.floats(6, 16),
)  # fmt: skip


@given(st.lists(BOXES, max_size=14))
def test_placed_labels_never_meet_each_other_nor_a_marker_and_stay_inside(wanted: list[Label]) -> None:
    room = Box(0, 0, 400, 300)
    markers = [Box(label.x - 4, label.y - 4, label.x + 4, label.y + 4) for label in wanted]
    found = [box for box in place(wanted, room, forbidden=markers) if box is not None]
    assert not any(one.meets(other) for one, other in combinations(found, 2))
    assert not any(box.meets(marker) for box in found for marker in markers)
    assert all(room.holds(box) for box in found)


def test_a_label_keeps_off_lines_where_it_can() -> None:
    label = Label(50, 50, 20, 10, reach=3)
    (free,) = place([label], Box(0, 0, 100, 100))
    assert free is not None
    (moved,) = place([label], Box(0, 0, 100, 100), unwanted=[free])
    assert moved is not None
    assert not moved.meets(free)


def test_a_label_stands_nearest_to_its_own_point_or_is_left_out_or_must_be_shown() -> None:
    room, crowd = Box(0, 0, 400, 300), [(100.0 + 9 * n, 100.0 + 9 * m) for n in range(9) for m in range(9)]
    hidden = Label(136, 136, 30, 10, reach=3)
    assert place([hidden], room, crowd) == [None]
    shown = Label(136, 136, 30, 10, reach=9, must=True)
    assert place([shown], room, crowd) != [None]
    upper, lower = Label(200, 150, 60, 10, reach=9), Label(200, 142, 60, 10, reach=9)
    points = [(200.0, 150.0), (200.0, 142.0)]
    for label, box in zip((upper, lower), place([upper, lower], room, points), strict=True):
        assert box is not None
        assert box.distance(label.x, label.y) == min(box.distance(x, y) for x, y in points)


def test_a_label_without_room_is_left_out() -> None:
    assert place([Label(5, 5, 200, 10, reach=9)], Box(0, 0, 100, 100)) == [None]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted), st.floats(0.1, 8))
def test_spread_keeps_order_distance_and_limits(wanted: list[float], apart: float) -> None:
    found = spread(wanted, apart, 0, 100)
    assert len(found) == len(wanted)
    assert min(found) >= -1e-9
    assert max(found) <= 100 + 1e-9
    assert all(after - before >= apart - 1e-6 for before, after in pairwise(found))


def test_spread_moves_nothing_that_has_room_and_a_crowd_about_its_middle() -> None:
    assert spread([1, 20, 50], 5, 0, 100) == [1, 20, 50]
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]
    assert spread([0, 0, 0], 80, 0, 100) == [0, 50, 100]


# The page, as text; tests/test_report_page.py clicks it


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    write_report(mixed_sweep(), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)
    assert "default-src 'none'" in own


def test_texts_of_rows_cannot_leave_their_place_in_the_page(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028{{script}}"
    write_report([failed(error=nasty)], tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["rows"][0]["error"] == nasty


def test_numbers_that_are_not_finite_do_not_break_the_page(tmp_path: Path) -> None:
    write_report([row(image_parity_cosine=float("nan"), preprocess_ms=float("inf"))], tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    json.loads(data[1], parse_constant=lambda name: pytest.fail(name))
