"""The page, as text and in a real browser (Debian's chromium, or the one in $CONTINUAL_BROWSER)."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from continual.report.cli import write_report

from .conftest import CONFIG, L2_INIT, run_writer

VOID = {"meta", "link", "br", "img"}
BROWSER = os.environ.get("CONTINUAL_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = """<script>
const boxes = [...document.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect());
document.title = JSON.stringify({
  figures: boxes.map(box => [box.width, box.height]),
  drawn: [...document.querySelectorAll("figure svg")].map(svg => svg.getBBox().width),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
</script></body>"""


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
            measures = {"srank": [3, 2 + seed, 1], "weight_magnitude": [0.1, 0.2, 0.3]}
            write_run(f"final/{env}/base{seed}", seed, nodes=nodes, options=options, measures=measures)
            write_run(
                f"final/{env}/l2_init{seed}",
                seed,
                (0.6, 0.7, 0.8 + seed / 10),
                nodes={**nodes, "agent": L2_INIT},
                options={**options, "agent": "l2_init"},
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
    outline = Outline()
    outline.feed(source)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.links:
        assert link.startswith("data:") or link.removeprefix("#") in outline.ids, link
    assert "<script" not in source
    assert "&lt;two&gt;" in source
    assert "<two>" not in source
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", source)
    assert headings == [
        "Summary",
        "Online accuracy per task",
        "Weight magnitude per task",
        "Srank per task",
        "Forgetting",
        "Comparisons",
        "All environments together",
        "Sensitivity",
        "Ablations",
        "How to read this",
    ]


def test_tables_can_be_read_aloud(page):
    tables = re.findall(r"<table>.*?</table>", page.read_text(), re.DOTALL)
    assert len(tables) == 5  # summary, forgetting, a comparison for each environment, all together
    for table in tables:
        assert "<caption>" in table
        columns = table.count('scope="col"')
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
            assert len(re.findall(r"<t[hd]", row)) == columns
        assert table.count('scope="row"') >= table.count("<tr>") - 1 > 0


def test_figures_take_the_pages_colours_and_have_a_description(page):
    for svg in re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL):
        assert re.match(r'<svg role="img" aria-label="[^"]+"', svg)
        assert "currentColor" in svg
        assert not re.search(r"#(000000|333333|595959|e6e6e6)\b", svg)


def test_markdown_names_existing_figures_and_its_tables_are_even(page):
    text = (page.parent / "report.md").read_text()
    figures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(figures) == 8
    for figure in figures:
        assert (page.parent / figure).exists()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def browse(page: Path, folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What chromium prints and the lines of its console, for a page."""
    assert BROWSER
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr", "--window-size=1200,900"),
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_page_in_a_browser(page, tmp_path):
    _, console = browse(page, tmp_path, "--dump-dom")
    assert console == []

    probe = tmp_path / "probe.html"
    source = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    probe.write_text(source.replace("</body>", SIZES))
    dom, console = browse(probe, tmp_path, "--dump-dom")
    assert console == []
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title
    sizes = json.loads(title[1])
    assert len(sizes["figures"]) == 8
    for width, height in sizes["figures"]:
        assert 300 < width <= 1200
        assert height > 100
    assert min(sizes["drawn"]) > 300
    assert sizes["overflow"] <= 0

    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    assert browse(broken, tmp_path, "--dump-dom")[1]  # the console is really read

    picture = tmp_path / "page.png"
    browse(page, tmp_path, f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000
