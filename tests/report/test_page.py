"""The page, as text and in a real browser (Debian's chromium, or the one in $CONTINUAL_BROWSER)."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from continual.report.cli import write_report

from .conftest import CONFIG, L2_INIT, run_writer

VOID = {"meta", "link", "br", "img", "input"}
BROWSER = os.environ.get("CONTINUAL_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")


class Outline(HTMLParser):
    """The open tags, the ids and the links of a page; fails where tags are not well nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of section, on two environments; labels hold characters to escape."""
    root = tmp_path_factory.mktemp("runs")
    write_run = run_writer(root)
    for env in ("one", "<two>"):
        nodes = {"env": {**CONFIG["env"], "_target_": env}}
        options = {"env": env}
        for seed in range(2):
            measures = {
                "srank": [3, 2 + seed, 1],
                "weight_magnitude": [0.1, 0.2, 0.3],
                "srank/hidden_0": [3, 2, 1],
                "srank/hidden_1": [2, 2, 2],
                "online_accuracy@0.5": [0.2, 0.3, 0.4],
            }
            write_run(f"final/{env}/base{seed}", seed, nodes=nodes, options=options, measures=measures)
            write_run(
                f"final/{env}/l2_init{seed}",
                seed,
                (0.6, 0.7, 0.8 + seed / 10),
                nodes={**nodes, "agent": L2_INIT},
                options={**options, "agent": "l2_init"},
                overrides=["agent=l2_init", f"seed={seed}"],
                measures=measures,
                forgetting=[[0.9], [0.8, 0.9], [0.3 + seed / 5, 0.6, 0.8]],
                backward_transfer=-0.4,
                one_step_backward_transfer=-0.1,
            )
    for place, (lr, weight) in enumerate([(1e-3, 1e-2), (1e-3, 1e-3), (1e-4, 1e-2), (1e-4, 1e-3)]):
        nodes = {"agent": {**L2_INIT, "l2_weight": weight}, "optimizer": {"_target_": "Adam", "lr": lr}}
        write_run(f"sweep/{place}", 0, (0.1 * place, 0.1), nodes=nodes, options={"agent": "l2_init"})
    write_report([root / "final"], root / "report", sweep=[root / "sweep"])
    return root / "report" / "report.html"


def test_page_is_well_formed_and_complete_in_itself(page):
    source = page.read_text()
    source = re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL)
    outline = Outline()
    outline.feed(source)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.links:
        assert link.startswith("data:") or link.removeprefix("#") in outline.ids, link
    assert "&lt;two&gt;" in source
    assert "<two>" not in source
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", source)
    assert headings == [
        "Summary",
        "Over tasks",
        "Layers",
        "Forgetting",
        "Comparisons",
        "All environments together",
        "Sensitivity",
        "Ablations",
        "How to read this",
        "All runs",
    ]


def test_tables_can_be_read_aloud(page):
    tables = re.findall(r"<table><caption>.*?</table>", page.read_text(), re.DOTALL)
    assert len(tables) == 5  # summary, forgetting, a comparison for each environment, all together
    for table in tables:
        columns = table.count('scope="col"')
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
            assert len(re.findall(r"<t[hd]", row)) == columns
        assert table.count('scope="row"') >= table.count("<tr>") - 1 > 0


def test_markdown_names_existing_figures_and_its_tables_are_even(page):
    text = (page.parent / "report.md").read_text()
    figures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(figures) == 8
    for figure in figures:
        assert (page.parent / figure).exists()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_no_text_can_end_the_pages_data(write_run, tmp_path):
    write_run("0", 0, nodes={"agent": {"_target_": "a", "name": "</script><script>alert(1)</script>"}})
    write_run("1", 0, nodes={"agent": {"_target_": "a", "name": "{{ 7 * 7 }}"}})
    write_report([tmp_path], tmp_path / "report")
    source = (tmp_path / "report" / "report.html").read_text()
    assert "<script>alert" not in source
    assert "{{ 7 * 7 }}" in source
    content = re.search(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)
    assert content
    assert (
        "</script><script>alert(1)</script>"
        in json.loads(content[1])["lines"][0]["label"] + (json.loads(content[1])["lines"][1]["label"])
    )


class Browser:
    """A page in chromium, what its console said, and what its charts draw."""

    def __init__(self, tab) -> None:
        self.tab = tab
        self.console: list[str] = []
        tab.on("console", lambda message: self.console.append(message.text))
        tab.on("pageerror", lambda error: self.console.append(str(error)))

    def open(self, page: Path) -> None:
        self.tab.goto(page.as_uri())
        for chart in self.tab.query_selector_all("[data-chart]"):
            chart.scroll_into_view_if_needed()
        self.tab.wait_for_function("views.size === document.querySelectorAll('[data-chart]').length")

    def drawn(self, chart: str, kind: str) -> list[dict]:
        """What the marks of a kind in a chart stand for."""
        self.tab.wait_for_timeout(100)
        return self.tab.evaluate(
            """([chart, kind]) => {
              const found = [];
              const visit = item => {
                if (item.marktype === kind && item.role === "mark")
                  found.push(...item.items.map(one => ({...one.datum, opacity: one.opacity})));
                (item.items || []).forEach(visit);
              };
              visit(views.get(chart).scenegraph().root);
              return found;
            }""",
            [chart, kind],
        )


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    if BROWSER is None:
        pytest.skip("no chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    tab = chromium.new_page(viewport={"width": 1300, "height": 900})
    yield Browser(tab)
    tab.close()


@pytest.mark.browser
def test_every_chart_is_drawn_and_nothing_is_complained_of(page, browser):
    browser.open(page)
    assert browser.console == []
    charts = browser.tab.eval_on_selector_all("[data-chart]", "all => all.map(one => one.dataset.chart)")
    assert charts == [
        *("totals", "curves", "each", "layer-0", "layer-1", "past", "matrix", "comparisons", "surface-0"),
        *("effect-0", "effect-1"),
    ]
    for box in browser.tab.query_selector_all("[data-chart] canvas"):
        size = box.bounding_box()
        assert size["width"] > 250
        assert size["height"] > 60
    assert {row["label"] for row in browser.drawn("totals", "symbol")} == {"Plain training", "L2 Init"}
    assert len(browser.drawn("totals", "rect")) == 4  # a tick for each run
    assert len(browser.drawn("matrix", "rect")) == 6
    assert len(browser.drawn("surface-0", "rect")) == 4
    assert len(browser.drawn("comparisons", "symbol")) == 1
    points = browser.drawn("each", "symbol")
    assert {(row["label"], row["seed"]) for row in points} == {
        (label, seed) for label in ("Plain training", "L2 Init") for seed in ("0", "1")
    }
    assert {row["command"].rpartition(" ")[2] for row in points if row["label"] == "L2 Init"} == {
        "seed=0",
        "seed=1",
    }
    # The policy of the page is in force.
    browser.tab.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    browser.tab.wait_for_timeout(200)
    assert any("Content Security Policy" in line for line in browser.console)


@pytest.mark.browser
def test_a_click_hides_a_group_everywhere(page, browser):
    browser.open(page)
    browser.tab.get_by_role("checkbox", name="Plain training").uncheck()
    for chart in ("totals", "curves", "each", "layer-0"):
        assert {row["line"] for row in browser.drawn(chart, "symbol")} == {0}
    browser.tab.get_by_role("button", name="none").click()
    assert browser.drawn("curves", "symbol") == []
    browser.tab.get_by_role("button", name="all").click()
    assert {row["label"] for row in browser.drawn("curves", "symbol")} == {"Plain training", "L2 Init"}
    browser.tab.locator("[data-key=agent]").select_option("base")
    assert {row["label"] for row in browser.drawn("curves", "symbol")} == {"Plain training"}
    assert browser.console == []


@pytest.mark.browser
def test_pointing_at_a_group_highlights_it_everywhere(page, browser):
    browser.open(page)
    browser.tab.locator("[data-line='1']").hover()
    for chart in ("totals", "comparisons"):
        opacity = {row["line"]: row["opacity"] for row in browser.drawn(chart, "symbol")}
        assert all(value == (1 if line == 1 else 0.12) for line, value in opacity.items())


@pytest.mark.browser
def test_a_tooltip_has_the_seed_and_the_command_of_a_run(page, browser):
    browser.open(page)
    browser.tab.evaluate("window.scrollTo(0, 0)")
    x, y = browser.tab.evaluate(
        """() => {
          const view = views.get("totals"), found = [];
          const visit = (item, x, y) => {
            if (item.marktype === "rect" && item.role === "mark")
              found.push(...item.items.map(({bounds, datum}) =>
                  [x + (bounds.x1 + bounds.x2) / 2, y + (bounds.y1 + bounds.y2) / 2, datum.line]));
            (item.items || []).forEach(one => visit(one, x + (one.x || 0), y + (one.y || 0)));
          };
          visit(view.scenegraph().root, 0, 0);
          const [left, top] = view.origin(), inner = view.padding(), tick = found.find(one => one[2] === 0);
          const box = document.querySelector("[data-chart=totals] canvas").getBoundingClientRect();
          return [box.x + left + inner.left + tick[0], box.y + top + inner.top + tick[1]];
        }"""
    )
    browser.tab.mouse.move(x - 3, y)
    browser.tab.mouse.move(x, y, steps=5)
    browser.tab.wait_for_selector("#vg-tooltip-element.visible")
    text = browser.tab.inner_text("#vg-tooltip-element")
    assert "seed" in text
    assert "python scripts/train.py agent=l2_init seed=" in text


@pytest.mark.browser
def test_selects_change_the_measure_and_the_environment(page, browser):
    browser.open(page)
    select = browser.tab.locator("[data-parameter=measure]")
    assert select.locator("option").all_inner_texts() == [
        *("online accuracy", "srank", "weight magnitude", "online accuracy after 0.5 of a task"),
        "online accuracy within tasks",
    ]
    select.select_option(label="srank")
    assert {row["mean"] for row in browser.drawn("curves", "symbol")} == {3, 2.5, 1}
    select.select_option(label="online accuracy within tasks")
    tasks = [row["task"] for row in browser.drawn("curves", "symbol") if row["label"] == "Plain training"]
    assert sorted(tasks) == [0.5, 1, 1.5, 2, 2.5, 3]
    browser.tab.locator("[data-parameter=panel]").select_option("<two>")
    assert {row["panel"] for row in browser.drawn("totals", "symbol")} == {"<two>"}
    assert browser.console == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
def test_on_narrow_and_wide_light_and_dark_screens(page, chromium, scheme, width):
    tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    browser = Browser(tab)
    browser.open(page)
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    canvas = tab.locator("[data-chart=curves] canvas").bounding_box()
    assert canvas["width"] > 0.6 * min(width, 1200)
    ink = tab.evaluate("views.get('curves')._runtime ? look().axis.labelColor.trim() : ''")
    assert ink == ("#e8eaed" if scheme == "dark" else "#1b1f24")
    tab.close()
