"""Real clicks on the page in a headless Chromium, opened from disk."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import RECALLS, failed, mixed_sweep, profile, row, static, untrained_sweep

from lpcvc_zoo.bench.pareto import compare
from lpcvc_zoo.bench.report.page import page as page_of
from lpcvc_zoo.bench.report.table import csv_text
from lpcvc_zoo.bench.report.view import names
from lpcvc_zoo.bench.row import ResultRow

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
).split()
FAMILIES = ["efficientvit", "mobileclip", "openai_clip", "tinyclip"]

Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium found (install the package chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Any:
    """One for all tests: what takes longest is to compile Plotly, and a tab does that once for an address."""
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(20_000)
    return page


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "report.html"


@pytest.fixture
def opened(tab: Any, address: Path) -> Iterator[Opener]:
    """Writes a page and opens it; by the end it must have asked for nothing and complained of nothing."""
    complaints: list[str] = []

    def request(asked: Any) -> None:
        if not asked.url.startswith(("file:", "blob:", "data:")):
            complaints.append(f"asked for {asked.url}")

    def console(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def pageerror(error: Any) -> None:
        complaints.append(str(error))

    def dialog(shown: Any) -> None:
        complaints.append("a dialog opened")
        shown.dismiss()

    def open_page(rows: list[ResultRow], width: int = 1300, scheme: Any = "light") -> Any:
        address.write_text(page_of(compare(rows), "2026-03-01"), encoding="utf-8")
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.mouse.move(0, 0)
        tab.goto(address.as_uri())
        tab.wait_for_selector("#count:not(:empty)")
        return tab

    listeners = (request, console, pageerror, dialog)
    for listener in listeners:
        tab.on(listener.__name__, listener)
    yield open_page
    tab.goto("about:blank")
    for listener in listeners:
        tab.remove_listener(listener.__name__, listener)
    assert complaints == []


def shown(page: Any) -> list[str]:
    return list(page.locator("tr.model button").all_inner_texts())


def column(page: Any, title: str) -> list[str]:
    titles = [text.replace("\n", " ") for text in page.locator("thead button").all_inner_texts()]
    cells = f"tr.model:not(.failed) > td:nth-child({titles.index(title) + 1})"
    return list(page.locator(cells).all_inner_texts())


def traces(page: Any, chart: str) -> list[dict[str, Any]]:
    return list(
        page.evaluate(
            """id => (document.getElementById(id).data || []).map(t => ({
                name: t.name, x: [...t.x], y: [...t.y], ids: t.customdata, hover: t.hovertext,
                colours: t.marker && t.marker.color, errors: t.error_y && [...t.error_y.array],
                shape: t.line && t.line.shape}))""",
            chart,
        )
    )


def points(page: Any) -> int:
    return sum(len(trace["x"]) for trace in traces(page, "scatter") if trace["ids"])


def downloaded(page: Any, button: str) -> str:
    with page.expect_download() as caught:
        page.click(button)
    return Path(caught.value.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [row, static], ids=["latency", "estimate"])
def test_the_precisions_of_one_model_are_joined_by_a_line_and_of_no_other(opened: Opener, make: Any) -> None:
    cheaper = profile("q", 30, 11.4) if make is row else static("efficientvit_b0_text_s").image
    quantised = make("mobileclip_s0", precision="w8a8", image=cheaper, key="other")
    page = opened([quantised, make("mobileclip_s0"), make("mobileclip_s1")])
    (line,) = [trace for trace in traces(page, "scatter") if trace["name"] == "precisions"]
    assert (len(line["x"]), line["x"]) == (2, sorted(line["x"]))
    assert page.is_visible("#precisions-key")
    page.fill("#search", "mobileclip_s1")
    assert not [trace for trace in traces(page, "scatter") if trace["name"] == "precisions"]
    assert page.is_hidden("#precisions-key")


def test_the_page_opens_with_every_model_in_table_and_charts(opened: Opener) -> None:
    page = opened(mixed_sweep())
    assert len(shown(page)) == 22
    assert page.inner_text("#count") == "22 of 22 models shown"
    assert page.inner_text("h1") == "Recall against latency of 20 models"
    assert points(page) == 20
    assert [len(trace["x"]) for trace in traces(page, "bars")] == [20, 20, 20]
    assert "untrained" in page.inner_text("#caveats")


@pytest.mark.parametrize("width", [1300, 400])
def test_long_names_leave_the_bars_their_room_and_are_whole(opened: Opener, width: int) -> None:
    rows = [
        row(recall=0.3, precision="image=w8a16+text=float", text_length=length, text_depth=depth).model_copy(
            update={"entry": "efficientnet_lite0_96_text_xxs"}
        )
        for length in (8, 16)
        for depth in (2, 4)
    ]
    page = opened(rows, width=width)
    seen = page.evaluate(
        """() => {
            const bars = document.getElementById("bars"), edges = bars.getBoundingClientRect();
            const texts = [...bars.querySelectorAll("text")].filter(text => /depth/.test(text.textContent));
            const boxes = texts.map(text => text.getBoundingClientRect());
            return {
                plot: bars._fullLayout._size.w / edges.width,
                names: texts.map(text => text.textContent),
                inside: boxes.every(box => box.left >= edges.left && box.right <= edges.right),
                lines: [...bars.querySelectorAll("tspan")].map(line => getComputedStyle(line).opacity),
            };
        }"""
    )
    assert seen["plot"] > 0.5
    spaceless = [[name.replace(" ", "") for name in found] for found in (seen["names"], names(rows))]
    assert spaceless[0] == spaceless[1]  # a line ends in place of some
    assert seen["inside"]
    assert set(seen["lines"]) <= {"1"}


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(opened: Opener) -> None:
    page = opened(mixed_sweep())
    totals = [float(text) for text in column(page, "Total ms")]
    assert totals == sorted(totals)
    heading = page.locator("th", has_text="Params").locator("button")
    heading.click()
    up = [float(text) for text in column(page, "Params M")]
    assert up == sorted(up)
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Params")
    heading.click()
    assert [float(text) for text in column(page, "Params M")] == up[::-1]
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_missing_values_are_dashes_and_come_last_in_both_directions(opened: Opener) -> None:
    page = opened(mixed_sweep())
    for _ in range(2):
        page.locator("th", has_text="Recall").locator("button").click()
        cells = column(page, "Recall 95 % interval")
        assert cells[-6:] == ["–"] * 6
        assert "–" not in cells[:-6]
    assert cells[0].startswith("0.810 [0.745, 0.867]")


def test_typing_filters_table_and_charts(opened: Opener) -> None:
    page = opened(mixed_sweep())
    page.fill("#search", "MobileCLIP2 published")
    assert sorted(shown(page)) == ["mobileclip2_s0.published", "mobileclip2_s2.published"]
    assert points(page) == 2
    assert [len(trace["x"]) for trace in traces(page, "bars")] == [2, 2, 2]
    page.fill("#search", "out of memory")
    assert shown(page) == ["openai_clip_rn50"]
    assert "no model is shown" in page.inner_text("#scatter")
    page.fill("#search", "nothing like this")
    assert page.inner_text("#empty") == "No model passes these filters."
    page.click("#reset")
    assert len(shown(page)) == 22
    assert points(page) == 20


def test_the_weights_filter_tells_trained_from_untrained(opened: Opener) -> None:
    page = opened(mixed_sweep())
    page.select_option("#weights", "trained")
    assert len(shown(page)) == len(RECALLS)
    page.select_option("#weights", "untrained")
    assert not any("." in name for name in shown(page))
    assert points(page) == 6


def test_a_click_on_a_family_in_the_legend_takes_it_away_and_back(opened: Opener) -> None:
    page = opened(mixed_sweep())
    assert page.locator("#families button").all_inner_texts() == FAMILIES
    chip = page.locator("#families button", has_text="tinyclip")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert not any("tinyclip" in name for name in shown(page))
    assert [trace["name"] for trace in traces(page, "scatter")] == ["Pareto front", *FAMILIES[:3]]
    chip.click()
    assert len(shown(page)) == 22


def test_the_axis_button_switches_between_log_and_linear(opened: Opener) -> None:
    page = opened(mixed_sweep())

    def axis() -> str:
        return str(page.evaluate("document.getElementById('scatter')._fullLayout.xaxis.type"))

    assert axis() == "log"
    page.click("#linear")
    assert axis() == "linear"
    assert page.get_attribute("#linear", "aria-pressed") == "true"
    assert page.get_attribute("#log", "aria-pressed") == "false"
    page.click("#log")
    assert axis() == "log"


def test_the_front_is_pareto_pys_and_follows_the_filters(opened: Opener) -> None:
    page = opened(mixed_sweep())
    (group,) = compare(mixed_sweep())
    front = [group.rows[place] for place in group.front]
    trace = traces(page, "scatter")[0]
    assert trace["shape"] == "hv"
    assert trace["x"] == [row.total_ms for row in front]
    marked = page.locator("tr.model", has=page.locator(".tag.front")).locator("button").all_inner_texts()
    assert marked == [names(group.rows)[place] for place in group.front]
    page.fill("#search", "openai_clip")
    assert len(traces(page, "scatter")[0]["x"]) == 2


def test_untrained_models_are_hollow_on_the_chance_line_and_trained_ones_have_intervals(
    opened: Opener,
) -> None:
    page = opened(mixed_sweep())
    rows = json.loads(page.evaluate("document.getElementById('data').textContent"))["rows"]
    families = {trace["name"]: trace for trace in traces(page, "scatter")[1:]}
    for trace in families.values():
        for identity, y, colour, error in zip(
            trace["ids"], trace["y"], trace["colours"], trace["errors"], strict=True
        ):
            assert (colour == "#ffffff") == (not rows[identity]["trained"])
            assert (error > 0) == rows[identity]["trained"]
            assert rows[identity]["trained"] or y == pytest.approx(10 / 474)
    assert "chance level 0.021" in page.inner_html("#scatter")


def test_where_nothing_is_scored_the_page_says_so_and_names_every_model(opened: Opener) -> None:
    page = opened(untrained_sweep())
    assert "recall not measured" in page.inner_text("h1")
    picture = page.inner_html("#scatter")
    assert "computed, not measured" in picture
    assert all(row.entry in picture for row in untrained_sweep())
    assert page.locator("#front-key").is_hidden()


def test_pointing_at_a_model_tells_all_of_it_and_a_click_opens_its_row(opened: Opener) -> None:
    page = opened(mixed_sweep())
    point = page.locator("#scatter .scatterlayer .trace path.point").last
    point.hover(force=True)
    hover = page.locator("#scatter .hoverlayer .hovertext")
    hover.wait_for()
    text = hover.text_content()
    for fact in ("total", "preprocessing", "text", "recall", "parameters", "memory", "cosine", "lpcvc2026"):
        assert fact in text, fact
    page.mouse.down()
    page.mouse.up()
    page.locator("tr.details").wait_for()
    assert page.locator("tr.details").count() == 1


def test_a_row_opens_to_everything_known_about_it(opened: Opener) -> None:
    rows = mixed_sweep()
    page = opened(rows)
    wanted = next(found for found in rows if found.entry == "mobileclip_s0")
    button = page.get_by_role("button", name="mobileclip_s0.published", exact=True)
    button.click()
    text = page.inner_text("tr.details")
    assert wanted.image_sha256 is not None
    assert wanted.image_sha256 in text
    for fact in ("31, after 3 to warm up", "0.9999998", "torch", "2.11.0", "77 tokens", "@10", "fractional"):
        assert fact in text, fact
    assert page.locator("tr.details svg rect").count() == 48
    button = page.get_by_role("button", name="mobileclip_s0.published", exact=True)
    assert button.get_attribute("aria-expanded") == "true"
    button.press("Enter")
    assert page.locator("tr.details").count() == 0
    assert page.evaluate("document.activeElement.textContent") == "mobileclip_s0.published"


def test_failed_rows_show_their_error(opened: Opener) -> None:
    page = opened(mixed_sweep())
    assert page.locator("tr.failed").count() == 2
    assert "cosine 0.9931" in page.locator("tr.failed", has_text="mobileclip2_b").inner_text()
    page.get_by_role("button", name="mobileclip2_b", exact=True).click()
    assert page.inner_text("tr.details pre").count("cosine 0.9931") == 3


def test_the_downloaded_csv_is_results_csv_and_follows_the_filters(opened: Opener) -> None:
    rows = [*mixed_sweep(), failed("mobileclip_b", 'Error: "x", y\nline two')]
    page = opened(rows)
    assert downloaded(page, "#csv") == csv_text(compare(rows)[0].rows)
    page.fill("#search", "tinyclip")
    page.select_option("#weights", "trained")
    lines = list(csv.DictReader(io.StringIO(downloaded(page, "#csv"))))
    assert [line["entry"] for line in lines] == [
        found.entry for found in compare(rows)[0].rows if found.family == "tinyclip" and found.trained
    ]


def test_the_downloaded_json_gives_back_the_rows_shown(opened: Opener) -> None:
    page = opened(mixed_sweep())
    page.fill("#search", "efficientvit")
    document = json.loads(downloaded(page, "#json"))
    assert document["schema"] == "lpcvc_zoo.results/1"
    found = [ResultRow.model_validate(facts) for facts in document["rows"]]
    assert found == [row for row in compare(mixed_sweep())[0].rows if row.family == "efficientvit"]


def test_rows_that_may_not_be_compared_are_shown_one_comparison_at_a_time(opened: Opener) -> None:
    phone = "XR2 Gen 2 (Proxy)"
    remote = row("mobileclip_s1", 0.7, device=phone, target="aihub", image=profile("x", 9, 1, threads=None))
    page = opened([*mixed_sweep(), remote])
    page.locator("#comparison select").select_option("1")
    assert shown(page) == ["mobileclip_s1.published"]
    assert phone in page.inner_text("#setting")
    assert "budget 35 ms" in page.inner_html("#scatter")
    page.locator("#comparison select").select_option("0")
    assert len(shown(page)) == 22
    assert "budget 35 ms" not in page.inner_html("#scatter")
    page.locator("#comparison select").select_option("all")
    assert len(shown(page)) == 23
    assert "Choose one comparison" in page.inner_text("#scatter")


def test_scripts_and_tags_in_texts_are_only_text(opened: Opener) -> None:
    nasty = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2"><b>bold</b>'
    bad_job = profile("x", 5, 1, job_id="job", job_url="javascript:window.hacked=3")
    named = row(image=bad_job, versions={nasty: nasty}).model_copy(update={"entry": nasty, "family": nasty})
    page = opened([named, failed(error=nasty)])
    assert nasty in shown(page)
    for place in range(2):
        page.locator("tr.model button").nth(place).click()
    assert nasty in page.inner_text("tr.details pre")
    page.locator("#scatter .scatterlayer .trace path.point").first.hover(force=True)
    page.locator("#scatter .hoverlayer .hovertext").wait_for()
    assert "<img" in page.locator("#scatter .hoverlayer .hovertext").text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, tr a").count() == 0


def test_a_job_links_to_its_page(opened: Opener) -> None:
    page = opened([row(image=profile("x", 5, 1, job_id="jp0abc", job_url="https://hub.example/jp0abc"))])
    page.locator("tr.model button").click()
    assert page.locator("tr.details a").get_attribute("href") == "https://hub.example/jp0abc"


@pytest.mark.parametrize(
    "rows", [[], [failed()], [row(dataset=None, chance=None)]], ids=["none", "failed", "no data"]
)
def test_a_page_with_little_to_show_still_works(opened: Opener, rows: list[ResultRow]) -> None:
    page = opened(rows)
    assert len(shown(page)) == len(rows)
    page.click("#linear")
    page.click("#reset")
    assert downloaded(page, "#csv").count("\n") == 1 + len(rows)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_the_page_fits_its_window_in_both_schemes(opened: Opener, width: int, scheme: str) -> None:
    page = opened(mixed_sweep(), width, scheme)
    page.locator("tr.model button").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".panel").bounding_box()["width"] <= width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
    assert light == (scheme == "light")
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_function("document.getElementById('bars')._fullLayout.width <= 800")
    assert page.evaluate("document.documentElement.scrollWidth") <= 800


def test_the_page_can_be_used_by_keyboard_alone(opened: Opener) -> None:
    page = opened(mixed_sweep())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#families button").first.focus()
    page.keyboard.press("Space")
    assert not any("efficientvit" in name for name in shown(page))
    page.keyboard.press("Space")
    page.locator("th button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Model")
    assert shown(page)[0] == "efficientvit_b0_text_s.published"
    assert shown(page)[-1] == "tinyclip_vit_61m_32_text_29m.published"
    page.locator("tr.model button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.details").count() == 1


def test_static_estimates_have_a_comparison_and_an_axis_of_their_own(opened: Opener) -> None:
    rows = [*mixed_sweep(), *(static(entry, RECALLS.get(entry)) for entry in RECALLS)]
    page = opened(rows)
    beside = dict(zip(shown(page), column(page, "Static MB, XR2 Gen 2"), strict=False))
    assert beside["mobileclip_s0.published"] not in ("", "–")
    assert beside["efficientvit_m2_text_s"] == "–"
    page.select_option("#comparison select", "1")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Static MB")
    own = dict(zip(shown(page), column(page, "Static MB, XR2 Gen 2"), strict=True))
    assert own["mobileclip_s0.published"] == beside["mobileclip_s0.published"]
    assert set(column(page, "Total ms")) == {"–"}
    assert page.is_hidden("#preprocessing-key")
    assert "XR2 Gen 2" in page.inner_text("#setting")
    assert page.inner_text("#against") == "Recall against the compiler's static estimate"
    titles = page.eval_on_selector_all(
        "#scatter .xtitle, #bars .xtitle", "all => all.map(one => one.textContent)"
    )
    assert len(titles) == 2
    assert all(title.startswith("compiler's static estimate, MB moved") for title in titles)
    drawn = page.evaluate("document.getElementById('bars').data[0].y.length")
    assert drawn == len(RECALLS)
    assert " ms" not in page.inner_text("#findings")
    page.click("tbody tr.model button")
    told = page.inner_text("tr.details")
    assert "DMA" in told
    assert "VTCM" in told
    page.select_option("#comparison select", "0")
    assert page.inner_text("#against") == "Recall against latency"
