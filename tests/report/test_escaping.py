"""What a config says is shown as it is, in every file of a report and in the terminal."""

import csv

import pytest

from continual.report.cli import main
from continual.report.escaping import csv_text, latex_text, markdown_text, printable

from .conftest import CONFIG

HOSTILE = [
    "d[/b]/x.npz",
    "d[abc]/x.npz",
    "[bold red]x",
    "<script>alert(1)</script>",
    "a|b",
    "$x_{$",
    "$\\alpha$",
    "=1+1",
    "@SUM(A1)",
    "\x1b[31mred",
    "two\nlines",
    "[x](http://y)",
    "_hidden",
    "${oc.env:CONTINUAL_SECRET}",
    "100 %",
    "\N{HANGUL SYLLABLE HAN}",
]


@pytest.mark.parametrize(
    ("text", "as_markdown", "as_latex", "as_csv"),
    [
        ("l2_init", "l2_init", r"l2\_init", "l2_init"),
        ("_a*b|c", r"\_a\*b\|c", r"\_a*b\textbar{}c", "_a*b|c"),
        ("[1, 2]", "[1, 2]", "[1, 2]", "[1, 2]"),
        ("[a](b)", r"[a\](b)", "[a](b)", "[a](b)"),
        ("<b>&", "&lt;b&gt;&amp;", r"\textless{}b\textgreater{}\&", "<b>&"),
        ("=1+1", "=1+1", "=1+1", "'=1+1"),
        ("-1e-05", "-1e-05", "-1e-05", "-1e-05"),
        ("-cmd", "-cmd", "-cmd", "'-cmd"),
        ("-", "-", "-", "-"),
    ],
)
def test_texts(text, as_markdown, as_latex, as_csv):
    assert (markdown_text(text), latex_text(text), csv_text(text)) == (as_markdown, as_latex, as_csv)


def test_what_a_terminal_would_obey_is_written_out():
    assert printable("a\x1b[31mb\nc\td\u2028") == r"a\x1b[31mb\nc\td\u2028"


def test_a_report_on_hostile_texts(write_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CONTINUAL_SECRET", "kept-to-myself")
    for place, text in enumerate(HOSTILE):
        dataset = {**CONFIG["env"]["dataset"], "path": text}
        write_run(
            f"runs/{place}", 0, (0.5 + place / 100,) * 2, nodes={"env": {**CONFIG["env"], "dataset": dataset}}
        )
    output = tmp_path / "report"
    assert main([str(tmp_path / "runs"), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    markdown, page = ((output / f"report.{kind}").read_text() for kind in ("md", "html"))
    for text in HOSTILE:
        assert printable(text) in out
        assert markdown_text(text) in markdown
    assert "<script>alert" not in page
    assert "\x1b" not in out + markdown + page
    with open(output / "report.csv", newline="") as file:
        shown = {row["env.dataset.path"] for row in csv.DictReader(file)}
    assert shown == {csv_text(printable(text)) for text in HOSTILE}
    for path in output.iterdir():
        assert b"kept-to-myself" not in path.read_bytes()
    assert "kept-to-myself" not in out
