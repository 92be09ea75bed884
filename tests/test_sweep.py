from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sweep_fakes
from rich.console import Console
from sweep_fakes import ENTRIES, FakeTarget, entry, export_id, read_journal

from lpcvc_zoo.bench.cut import WHOLE
from lpcvc_zoo.bench.ledger import FILE, Ledger
from lpcvc_zoo.bench.options import refuse_idle
from lpcvc_zoo.bench.outcome import INTERRUPTED, Outcome
from lpcvc_zoo.bench.pareto import compare
from lpcvc_zoo.bench.plan import digest, plan, select
from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.bench.sweep import SweepOptions, run
from lpcvc_zoo.bench.workers import Workers
from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained
from lpcvc_zoo.errors import DatasetError, LedgerError, TargetError, UnknownNameError, ZooError
from lpcvc_zoo.exporting.artifact import MANIFEST, load_artifact
from lpcvc_zoo.registry import get_entry

HERE = Path(__file__).parent
TAG = Pretrained(
    tag="big_data", url="x", preprocessing=Preprocessing(), licence="l", training_data="t", paper="p"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins export to; caches and locks stay inside it, so that tests don't meet others'."""
    monkeypatch.setenv(sweep_fakes.FOLDER, str(tmp_path))
    monkeypatch.setenv("LPCVC_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(sweep_fakes.PAUSE, raising=False)
    return tmp_path


def sweep(
    folder: Path, *, entries: Sequence[Entry] = ENTRIES, tools: Any = sweep_fakes.TOOLS, **options: Any
) -> tuple[Outcome, str]:
    console = Console(file=io.StringIO(), width=200)
    made = SweepOptions(out=folder / "out", **options)
    outcome = run(made, tools=tools, entries=entries, targets=[FakeTarget()], console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return outcome, text


def start(
    folder: Path, *patterns: str, pause: float = 0.05, out: str = "out", **more: Any
) -> subprocess.Popen[str]:
    """A sweep in a process and process group of its own, as a terminal would start it: a shell that runs the
    tests in the background has them ignore Ctrl-C, and what they start would too."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "sweep_fakes_run.py"), str(folder / out), *patterns],
        env=os.environ | {sweep_fakes.PAUSE: str(pause)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **more,
    )  # fmt: skip


def table(folder: Path, out: str = "out") -> str:
    return (folder / out / "results.json").read_text()


def artifact(run: str, **facts: Any) -> Path:
    """A folder with files of its own that says in its manifest what it is."""
    made = Path(sweep_fakes.export("alpha_small", run, "lpcvc2026", WHOLE, "none", "float", ""))
    manifest = json.loads((made / MANIFEST).read_text()) | {"family": "adopted"} | facts
    (made / MANIFEST).write_text(json.dumps(manifest))
    return made


# ---- the plan


def names(pairs: list[tuple[Entry, str]]) -> list[str]:
    return [found.name for found, _ in pairs]


def test_the_default_sweep_is_cheapest_first_without_what_is_outside_it() -> None:
    assert names(select(ENTRIES)) == ["alpha_small", "beta_mid", "gamma_wide", "beta_large"]


def test_a_pattern_chooses_by_name_also_outside_the_default_sweep() -> None:
    assert names(select(ENTRIES, ["alpha*"])) == ["alpha_small", "alpha_huge"]
    assert names(select(ENTRIES, ["alpha*", "!*huge"])) == ["alpha_small"]
    assert names(select(ENTRIES, ["!beta*"])) == ["alpha_small", "gamma_wide"]


def test_quick_keeps_the_quick_entries() -> None:
    assert names(select(ENTRIES, quick=True)) == ["alpha_small"]
    with pytest.raises(ZooError, match="quick set"):
        select(ENTRIES, ["beta*"], quick=True)


def test_a_tag_in_a_pattern_chooses_published_weights() -> None:
    entries = [entry("delta", 1.0, pretrained=(TAG,)), entry("epsilon", 2.0)]
    assert [weights for _, weights in select(entries, ["*"])] == ["untrained", "untrained"]
    assert [(found.name, weights) for found, weights in select(entries, ["*.*"])] == [("delta", "big_data")]


def test_a_pattern_takes_each_models_usual_weights_and_an_exclusion_any() -> None:
    entries = [entry("delta", 1.0, pretrained=(TAG,)), entry("epsilon", 2.0)]

    def usual(found: Entry) -> str:
        return found.pretrained[0].tag if found.pretrained else "untrained"

    assert [pair[1] for pair in select(entries, weights=usual)] == ["big_data", "untrained"]
    assert [pair[1] for pair in select(entries, ["delta", "delta.*"], weights=usual)] == ["big_data"]
    assert names(select(entries, ["!delta"], weights=usual)) == ["epsilon"]
    assert names(select(entries, ["!delta.big*"], weights=usual)) == ["epsilon"]


def test_an_entry_that_needs_a_checkpoint_is_left_out_untrained_unless_named_in_full() -> None:
    entries = [entry("delta", 1.0), entry("delta_auto", 2.0, make_for=dict, pretrained=(TAG,))]
    assert names(select(entries, ["delta*"])) == ["delta"]
    assert names(select(entries, ["delta_auto"])) == ["delta_auto"]
    assert names(select(entries, ["delta*"], weights=lambda found: "big_data")) == ["delta", "delta_auto"]


@pytest.mark.parametrize("pattern", ["alhpa_small", "!alhpa_small"])
def test_a_pattern_without_a_match_suggests_names(pattern: str) -> None:
    with pytest.raises(UnknownNameError, match="'alpha_small'"):
        select(ENTRIES, [pattern])


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("contracts", "lpcvc2062", "contract"),
        ("precisions", "flaot", "precision"),
        ("models", "bata*", "model"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(
    folder: Path, option: str, value: str, kind: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown {kind}"):
        sweep(folder, **{option: (value,)})
    assert not (folder / "out").exists()


def test_rewrites_are_the_ones_that_suit_each_target_unless_named() -> None:
    class PhoneTarget(FakeTarget):
        rewrites = "npu"

    def planned(**options: Any) -> list[str]:
        pairs = [(entry("delta", 1.0), "untrained")]
        return [cell.rewrites for cell in plan(pairs, [FakeTarget(), PhoneTarget()], export_id, **options)]

    assert planned() == ["none", "npu"]
    assert planned(precisions=("w8a16",)) == ["npu", "npu"]  # the same file, so the same recall
    assert planned(rewrites="simplify") == ["simplify", "simplify"]
    with pytest.raises(UnknownNameError, match="simplify"):
        planned(rewrites="simplifi")


def test_a_precision_has_one_spelling_and_goes_to_the_export() -> None:
    pairs = [(entry("delta", 1.0), "untrained")]
    chosen = ("float", "image=w8a8+text=w8a8", "text=w8a16")
    cells = plan(pairs, [FakeTarget()], export_id, precisions=chosen)
    precisions = ["float", "w8a8", "image=float+text=w8a16"]
    assert [cell.precision for cell in cells] == precisions
    assert [cell.export_args[-2] for cell in cells] == precisions
    assert len({cell.id for cell in cells}) == 3


@pytest.mark.parametrize(
    ("wanted", "planned"),
    [
        ((), [None]),
        ((16,), [16]),
        ((24, 8, 24), [8, 24]),
        ((8, 77), [8, None]),
        ((16, 77, 200), [16, None]),
    ],
)
def test_text_lengths_are_cells_of_their_own_up_to_the_towers_context(wanted, planned) -> None:
    cells = plan([(entry("delta", 1.0), "untrained")], [FakeTarget()], export_id, text_lengths=wanted)
    assert [cell.cut.text_length for cell in cells] == planned
    assert len({cell.id for cell in cells}) == len({cell.slot for cell in cells}) == len(planned)


@pytest.mark.parametrize(
    ("layers", "wanted", "planned"),
    [(4, (), [None]), (4, (2, 1, 2), [1, 2]), (4, (1, 4, 9), [1, None]), (None, (1, 2), [None])],
)
def test_text_depths_are_cells_of_their_own_up_to_the_layers_there_are(layers, wanted, planned) -> None:
    pairs = [(entry("delta", 1.0, text_layers=layers), "untrained")]
    cells = plan(pairs, [FakeTarget()], export_id, text_depths=wanted)
    assert [cell.cut.text_depth for cell in cells] == planned
    assert len({cell.id for cell in cells}) == len({cell.slot for cell in cells}) == len(planned)


def test_a_sweep_has_a_row_for_every_text_length_at_every_depth(folder: Path) -> None:
    small = entry("alpha_small", 1.0, text_layers=2, text_params=5)
    outcome, said = sweep(folder, entries=[small], text_lengths=(8, 77), text_depths=(1, 2))
    assert {(row.text_length, row.text_depth) for row in outcome.rows} == {
        (length, depth) for length in (8, 77) for depth in (1, None)
    }
    assert said.count("alpha_small, 8 tokens, text depth 1  ") == 2  # as it is done, and in the table
    assert "lpcvc2026 fake" not in said
    # The entry's costs are those of the whole tower; of a part of it they are not known.
    for row in outcome.rows:
        assert row.text_params == (None if row.text_depth else 5)
        assert row.text_gmacs == (0.0 if (row.text_length, row.text_depth) == (77, None) else None)
        assert row.image_gmacs == 1.0


def test_a_whole_towers_slot_is_what_it_was_before_there_was_a_depth() -> None:
    (cell,) = plan([(ENTRIES[0], "untrained")], [FakeTarget()], export_id, text_lengths=(8,))
    facts = {"model": "beta_mid", "contract": "lpcvc2026", "text_length": 8, "precision": "float"}
    assert cell.slot == digest(facts | {"rewrites": "none", "target": ["fake", "nowhere", 1]})


@pytest.mark.parametrize(
    ("precisions", "scored"), [(("float",), "photos"), (("float", "w8a8"), "photos_heldout")]
)
def test_with_a_quantised_precision_what_calibrates_is_not_scored(folder: Path, precisions, scored) -> None:
    outcome, _ = sweep(folder, models=("alpha_small",), precisions=precisions)
    assert {row.dataset for row in outcome.rows} == {scored}
    assert len(outcome.rows) == len(precisions)


@pytest.mark.parametrize(("precision", "scored"), [("float", "photos"), ("w8a16", "photos_heldout")])
def test_a_quantised_folder_is_not_scored_on_what_calibrates(folder: Path, precision, scored) -> None:
    outcome, _ = sweep(folder, artifacts=(artifact("any", precision=precision),))
    (row,) = outcome.rows
    assert (row.dataset, row.scores.dataset, row.precision) == (scored, scored, precision)


def test_a_dataset_that_cannot_be_read_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        sweep(folder, dataset="nowhere")
    assert not (folder / "out").exists()
    assert read_journal(folder) == []


def test_a_dataset_too_small_for_the_metric_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(DatasetError, match="recall@10 over 2 texts would be 1 for any model"):
        sweep(folder, tools=replace(sweep_fakes.TOOLS, chance=Tools().chance))
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"targets": ("onnxruntim",)}, UnknownNameError, "Unknown target.*Did you mean 'onnxruntime'"),
        ({"devices": ("XR2 Gen 2",)}, TargetError, "no target of onnxruntime takes that option"),
    ],
)
def test_an_unknown_target_or_a_device_that_no_target_has_is_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(SweepOptions(out=folder / "out", **options), tools=sweep_fakes.TOOLS, entries=ENTRIES)


def test_a_cell_changes_with_what_its_measurement_depends_on_its_slot_does_not() -> None:
    def of(salt: str) -> Any:
        return plan([(ENTRIES[0], "untrained")], [FakeTarget()], lambda *facts: f"{facts} {salt}")[0]

    assert of("a").id == of("a").id != of("b").id
    assert of("a").slot == of("b").slot
    assert of("a").preprocessing_key == of("b").preprocessing_key


# ---- one sweep


def test_a_sweep_measures_every_cell_and_reports_it(folder: Path) -> None:
    outcome, text = sweep(folder)
    assert [row.entry for row in outcome.rows] == ["alpha_small", "beta_mid", "gamma_wide", "beta_large"]
    assert (outcome.added, outcome.failed, outcome.exit_code(True)) == (4, 0, 0)
    row = outcome.rows[0]
    assert row.image_ms == len("alpha_small untrained image")
    assert row.preprocess_ms == len("lpcvc2026")
    assert row.image_parity_cosine == 0.99999
    assert row.versions["tool"] == row.versions["fake"] == "1"
    assert row.scores is None
    assert (row.dataset, row.chance) == ("photos", 0.1)
    assert json.loads(table(folder)) == [sweep_fakes.comparable(row) for row in outcome.rows]
    assert "4/4  beta_large" in text
    assert "left)" in text
    assert "results.json" in text


def test_the_first_row_comes_soon_and_later_waves_are_larger(folder: Path) -> None:
    sweep(folder, jobs=1)
    made = [item["what"].split()[0] for item in read_journal(folder) if item["what"] != "profile lpcvc2026"]
    one = ["profile"] * 2  # its towers
    assert made == ["export", *one, "export", "export", *one, *one, "export", *one]


def test_a_second_sweep_does_nothing_again(folder: Path) -> None:
    sweep(folder)
    did = len(read_journal(folder))
    (folder / "out" / "results.json").unlink()
    outcome, text = sweep(folder)
    assert (outcome.added, len(outcome.rows)) == (0, 4)
    assert len(read_journal(folder)) == did
    assert len(json.loads(table(folder))) == 4
    assert "4 were there before" in text


def test_force_measures_again_and_keeps_the_old_rows(folder: Path) -> None:
    sweep(folder, quick=True)
    outcome, _ = sweep(folder, quick=True, force=True)
    assert outcome.added == 1
    profiles = Counter(
        item["what"] for item in read_journal(folder) if item["what"].startswith("profile alpha")
    )
    assert set(profiles.values()) == {2}
    with Ledger(folder / "out") as ledger:
        assert (len(ledger.history()), len(ledger.rows())) == (2, 1)


def test_models_that_fail_are_rows_and_the_others_go_on(folder: Path) -> None:
    entries = [
        entry("one_broken", 1.0),
        entry("two_hungry", 2.0),
        entry("three_slippery", 3.0),
        entry("four_fine", 4.0),
    ]
    outcome, text = sweep(folder, entries=entries)
    errors = [row.error for row in outcome.rows]
    assert {(row.dataset, row.chance) for row in outcome.rows} == {("photos", 0.1)}
    assert errors[0] == "ValueError: one_broken does not export"
    assert "killed by SIGKILL" in str(errors[1])
    assert "slipped" in str(errors[2])
    assert errors[3] is None
    assert outcome.rows[2].image is not None
    assert outcome.rows[2].text is None
    assert outcome.rows[0].image is None
    assert (outcome.exit_code(False), outcome.exit_code(True)) == (0, 1)
    assert "FAILED: ValueError" in text


def test_what_failed_is_tried_again_and_what_was_measured_is_not(folder: Path) -> None:
    slippery = [entry("three_slippery", 3.0)]
    sweep(folder, entries=slippery)
    outcome, _ = sweep(folder, entries=slippery)
    assert outcome.added == 1
    images = [item for item in read_journal(folder) if item["what"].endswith("slippery untrained image")]
    assert len(images) == 1


def test_untrained_models_are_scored_on_request_without_measuring_again(folder: Path) -> None:
    sweep(folder, quick=True)
    measured = [item["what"] for item in read_journal(folder)]
    outcome, text = sweep(folder, quick=True, evaluate_untrained=True, dataset="photos")
    assert outcome.rows[0].scores is not None
    assert outcome.rows[0].scores.dataset == "photos"
    assert "chance 0.100" in text
    extra = Counter(item["what"] for item in read_journal(folder)) - Counter(measured)
    assert list(extra) == ["export alpha_small untrained", "score alpha_small on photos"]
    assert sweep(folder, quick=True)[0].added == 0


def test_artifacts_of_one_name_are_rows_beside_each_other(folder: Path) -> None:
    one = {"weights": "model@1234567890"}
    facts = (one, one | {"rewrites": ["a", "b"]}, one | {"image_size": 128}, {"weights": "model@2345678901"})
    folders = tuple(artifact(f"run{place}", **more) for place, more in enumerate(facts))
    for again in (False, True):
        outcome, text = sweep(folder, artifacts=folders, force=again)
        assert outcome.added == 4
        assert all(f"  alpha_small.model, 77 tokens, {made}  " in text for made in folders)
        assert "alpha_small.model, 224 px, a+b  " in text
        shown = json.loads(table(folder))  # the newer row of the same files takes the older one's place
        assert [item["image_sha256"] for item in shown] == [row.image_sha256 for row in outcome.rows]


def test_an_artifact_of_another_image_size_does_not_cost_what_its_entry_does(folder: Path) -> None:
    own = get_entry("efficientnet_lite0_96_text_xxs")
    facts = {"entry": own.name, "family": own.family, "text_length": own.text.context_length}
    folders = tuple(artifact(str(size), weights="untrained", image_size=size, **facts) for size in (96, 128))
    rows = sweep(folder, artifacts=folders)[0].rows
    assert [(row.image_size, row.image_gmacs) for row in rows] == [(96, own.image_gmacs), (128, None)]
    assert {row.text_gmacs for row in rows} == {own.text_gmacs}


@pytest.mark.parametrize(
    ("option", "value", "flag"),
    [
        ("contracts", ("lpcvc2026_sample",), "--contract"),
        ("precisions", ("float", "w8a16"), "--precision"),
        ("calibration", "photos_heldout", "--calibration"),
        ("rewrites", "none", "--rewrites"),
        ("text_lengths", (8,), "--text-length"),
        ("text_depths", (1,), "--text-depth"),
        ("pretrained", False, "--untrained"),
        ("quick", True, "--quick"),
    ],
)
def test_an_option_that_no_artifact_can_follow_is_refused_unless_there_are_models_too(
    folder: Path, option: str, value: Any, flag: str
) -> None:
    artifacts = (artifact("any"),)
    with pytest.raises(ZooError, match=f"The artifacts are made already: expected no {flag}\\."):
        sweep(folder, artifacts=artifacts, **{option: value})
    assert not (folder / "out").exists()
    outcome, _ = sweep(folder, artifacts=artifacts, models=("alpha_small",), **{option: value})
    assert {row.model for row in outcome.rows} == {"alpha_small", "alpha_small.any"}


def test_what_an_artifact_is_or_a_target_makes_of_it_may_be_asked_for(folder: Path) -> None:
    class Quantising(FakeTarget):
        precision = "w8a8"

    made, given = artifact("any", precision="w8a16"), {"contracts": ("lpcvc2026",)}
    assert sweep(folder, artifacts=(made,), precisions=("w8a16",), **given)[0].added == 1
    asked = SweepOptions(artifacts=(made,), precisions=("w8a8",), calibration="mine")
    refuse_idle(asked, [load_artifact(made).manifest], [Quantising()])


def test_lines_and_table_name_the_setting_where_there_are_several(folder: Path) -> None:
    _, text = sweep(folder, quick=True, precisions=("float", "w8a16"))
    for line in ("1/2  alpha_small, float", "2/2  alpha_small, w8a16", "alpha_small, w8a16"):
        assert f"\n{line}  " in f"\n{text}"


def test_flaws_of_the_dataset_are_told(folder: Path) -> None:
    _, text = sweep(folder, quick=True, dataset="flawed")
    assert "Dataset flawed: 1 problem: img_list.csv, row 7: image 'x.jpg' not found" in text


def test_trained_models_are_always_scored(folder: Path) -> None:
    entries = [entry("delta", 1.0, pretrained=(TAG,))]
    outcome, _ = sweep(folder, entries=entries, models=("delta.big_data",))
    assert outcome.rows[0].weights == "big_data@abc"
    assert outcome.rows[0].scores is not None


def test_another_dataset_of_the_same_name_is_another_comparison(folder: Path) -> None:
    entries = [entry("delta", 1.0, pretrained=(TAG,)), entry("epsilon", 2.0)]
    for held in ("1" * 64, "2" * 64):
        tools = replace(sweep_fakes.TOOLS, fingerprint=lambda dataset, held=held: held)
        sweep(folder, entries=entries, tools=tools, models=("delta.*", "epsilon"))
    with Ledger(folder / "out") as ledger:
        groups = compare(ledger.rows())
    assert {group.comparison.dataset: [row.entry for row in group.rows] for group in groups} == {
        "photos (11111111)": ["delta", "epsilon"],
        "photos (22222222)": ["delta"],  # the other, which is only measured, is not measured again
    }


def test_the_preprocessing_is_measured_right_before_each_image_tower_and_once_for_each(folder: Path) -> None:
    outcome, _ = sweep(folder)
    sweep(folder)
    profiles = [item["what"] for item in read_journal(folder) if item["what"].startswith("profile")]
    files = [
        file
        for row in outcome.rows
        for file in ("lpcvc2026", f"{row.entry} untrained image", f"{row.entry} untrained text")
    ]
    assert profiles == [f"profile {file}" for file in files]


def test_preprocessing_that_fails_does_not_fail_the_models(folder: Path) -> None:
    tools = replace(sweep_fakes.TOOLS, export_preprocessing=sweep_fakes.export)  # takes one argument more
    outcome, text = sweep(folder, tools=tools, quick=True)
    assert (outcome.failed, outcome.rows[0].preprocess_ms) == (0, None)
    assert "preprocessing could not be measured" in text


def test_the_report_is_written_after_every_model(folder: Path) -> None:
    sizes: list[int] = []
    tools = replace(sweep_fakes.TOOLS, write_report=lambda rows, out: sizes.append(len(rows)))
    sweep(folder, tools=tools)
    assert sizes == [1, 2, 3, 4]


def test_a_report_that_fails_does_not_stop_the_sweep(folder: Path) -> None:
    def full(rows: Any, out: Path) -> None:
        raise OSError(28, "No space left on device")

    outcome, text = sweep(folder, tools=replace(sweep_fakes.TOOLS, write_report=full))
    assert len(outcome.rows) == 4
    assert outcome.exit_code(False) == 1
    assert "The report could not be written: OSError: [Errno 28] No space left on device" in text


def test_a_full_disk_ends_the_sweep_and_keeps_the_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Ledger.append

    def append_until_full(self: Ledger, cell: Any, row: Any) -> None:
        if row.entry == "gamma_wide":
            self._db.execute("PRAGMA max_page_count = 1")
            row = row.model_copy(update={"versions": {"x": "y" * 100_000}})
        append(self, cell, row)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", append_until_full)
        with pytest.raises(LedgerError, match="Make room and run the same command again"):
            sweep(folder)
    outcome, _ = sweep(folder)
    assert (outcome.added, len(outcome.rows)) == (2, 4)


def test_a_corrupted_ledger_is_reported_before_any_work(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / FILE).write_text("x" * 5000)
    with pytest.raises(LedgerError, match="not a ledger"):
        sweep(folder)
    assert read_journal(folder) == []


def test_nothing_of_ours_runs_during_a_measurement(folder: Path) -> None:
    processes = [start(folder, pause=0.1, out=out) for out in ("one", "two")]
    assert [process.wait(60) for process in processes] == [0, 0]
    items = read_journal(folder)
    measured = [item for item in items if item["what"].startswith("profile")]
    assert len(measured) == 2 * 4 * 3  # both towers of each model, and the preprocessing before them
    for item in measured:
        overlapping = [
            o for o in items if o is not item and o["began"] < item["ended"] and item["began"] < o["ended"]
        ]
        assert overlapping == []


def test_a_dead_worker_costs_its_own_job_only() -> None:
    with Workers(2, 1) as workers:
        jobs = [(sweep_fakes.export_id, (str(n), "", "", None, "none", "float", "")) for n in range(3)]
        assert sorted(done.value for done in workers.run(jobs)) == [f"{n}   None" for n in range(3)]
        for worker in workers._idle:
            worker.process.kill()
            worker.process.join()
        assert [done.error for done in workers.run(jobs)] == [None] * 3


# ---- killed, interrupted, side by side


def test_two_sweeps_on_one_ledger_share_the_work(folder: Path) -> None:
    processes = [start(folder, "*", pause=0.1) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    did = Counter(item["what"] for item in read_journal(folder))
    assert did.pop("profile lpcvc2026") == 5  # beside each model
    assert set(did.values()) == {1}, did
    with Ledger(folder / "out") as ledger:
        assert sorted(row.entry for row in ledger.history()) == sorted(found.name for found in ENTRIES)
    assert len(json.loads(table(folder))) == 5


@pytest.mark.slow
def test_a_sweep_killed_at_random_points_ends_like_an_undisturbed_one(folder: Path) -> None:
    assert start(folder, out="calm").wait(60) == 0
    seed = random.Random(26)
    kills = 0
    for attempt in range(60):
        process = start(folder)
        began = time.time()
        # Now and then before anything has started; mostly between 0.3 s and the end.
        wait = seed.uniform(0.0, 1.0)
        while process.poll() is None and time.time() < began + wait:
            time.sleep(0.01)
        finished = process.poll() is not None
        if not finished:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate(timeout=60)
        if kills >= 12:
            break
        if finished:  # start over, to be killed elsewhere
            (folder / "out").rename(folder / f"out-{attempt}")
    assert kills >= 12
    last = start(folder)
    said = last.communicate(timeout=60)[0]
    assert last.returncode == 0, said
    calm = json.loads(table(folder, "calm"))
    for out in [*folder.glob("out-*"), folder / "out"]:
        assert sorted(map(str, json.loads(table(folder, out.name)))) == sorted(map(str, calm))
        with Ledger(out) as ledger:
            assert len(ledger.history()) == 4  # no cell was done twice either


def test_a_killed_sweep_leaves_no_process_behind(folder: Path) -> None:
    process = start(folder, pause=5.0)
    while not (folder / "out" / FILE).exists():
        time.sleep(0.02)
    time.sleep(0.5)
    group = process.pid
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    deadline = time.time() + 10
    while time.time() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("worker processes outlive their sweep")


@pytest.mark.parametrize("stage", ["export", "measure"])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(folder: Path, stage: str) -> None:
    process = start(folder, pause=0.3)
    while not [item for item in read_journal(folder) if item["what"].startswith("profile alpha_small")]:
        time.sleep(0.02)
    if stage == "measure":
        while len(read_journal(folder)) < 8:
            time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    said = process.communicate(timeout=30)[0]
    assert process.returncode == INTERRUPTED, said
    assert "Run the same command again to go on" in said
    assert "Traceback" not in said
    with Ledger(folder / "out") as ledger:
        assert ledger._db.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    again = start(folder)
    assert again.wait(60) == 0
    assert len(json.loads(table(folder))) == 4
    did = Counter(item["what"] for item in read_journal(folder) if item["what"].startswith("profile"))
    assert did.pop("profile lpcvc2026") == 4  # beside each model
    assert set(did.values()) == {1}, did
