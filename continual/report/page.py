"""A report as one HTML page that needs nothing else: figures are inline SVG, there is no script."""

import html
import io
import re
from collections.abc import Iterable

import matplotlib
from matplotlib.figure import Figure

from continual.report.content import Picture, Report, Section, Table

LONG = 25
"""Tables of more rows are folded."""

_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --muted: #57606a; --rule: #dfe3e8;
  --shade: #f5f7f9; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --muted: #a3abb5;
  --rule: #363c43; --shade: #1e2226; --link: #7cb7ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; margin: 0; padding: 0; }
a { color: var(--link); }
.note { color: var(--muted); font-size: .9rem; }
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; height: auto; fill: currentColor; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding-bottom: .5rem; max-width: 60rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th.name { text-align: left; font-weight: 500; }
thead th, thead th.name { font-weight: 600; vertical-align: bottom; }
tbody tr:hover { background: var(--shade); }
summary { cursor: pointer; color: var(--link); }
"""

# Matplotlib writes colours as numbers. Those of text, axes and grid follow the page's theme.
_THEME = {
    "fill: #ffffff": "fill: none",
    "#000000": "currentColor",
    "#333333": "currentColor",
    "#595959": "var(--muted)",
    "#e6e6e6": "var(--rule)",
    "#cccccc": "var(--rule)",
}


def html_page(report: Report) -> str:
    """The page's source, complete."""
    sections = [(f"s{number}", section) for number, section in enumerate(report.sections)]
    links = "".join(f'<li><a href="#{name}">{html.escape(s.title)}</a></li>' for name, s in sections)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{html.escape(report.title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<header>",
            f"<h1>{html.escape(report.title)}</h1>",
            *(f'<p class="note">{html.escape(note)}</p>' for note in report.notes),
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
            "</header>",
            "<main>",
            *(line for name, section in sections for line in _section(name, section)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an `<svg>` element whose text, axes and grid take the colours of the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    source = buffer.getvalue()
    source = re.sub(r"\s*<metadata>.*?</metadata>", "", source[source.index("<svg") :], flags=re.DOTALL)
    # Several figures share a page, so that each id gets the figure's name.
    for start in ('id="', 'href="#', "url(#"):
        source = source.replace(start, f"{start}{name}-")
    for before, after in _THEME.items():
        source = source.replace(before, after)
    width = float(source.split('width="', 1)[1].split("pt", 1)[0])
    alone = f'<svg role="img" aria-label="{html.escape(description)}" style="max-width: {width:.0f}pt"'
    return source.replace("<svg", alone, 1).rstrip()


def _section(name: str, section: Section) -> Iterable[str]:
    yield f'<section aria-labelledby="{name}"><h2 id="{name}">{html.escape(section.title)}</h2>'
    for paragraph in section.text:
        yield f"<p>{html.escape(paragraph)}</p>"
    for picture in section.pictures:
        yield _figure(picture)
    for table in section.tables:
        yield from _table(table)
    yield "</section>"


def _figure(picture: Picture) -> str:
    source = inline_svg(picture.figure, picture.name, picture.description)
    return f"<figure>{source}</figure>"


def _table(table: Table) -> Iterable[str]:
    caption = html.escape(table.caption)
    folded = len(table.rows) > LONG
    if folded:
        yield f"<details><summary>Table of {len(table.rows)} rows: {caption}</summary>"
    yield f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
    yield f"<table><caption>{caption}</caption>"
    head = "".join(
        f'<th scope="col"{_class(place < table.names)}>{html.escape(text)}</th>'
        for place, text in enumerate(table.head)
    )
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for row in table.rows:
        names = "".join(
            f'<th scope="row" class="name">{html.escape(text)}</th>' for text in row[: table.names]
        )
        yield f"<tr>{names}{''.join(f'<td>{html.escape(text)}</td>' for text in row[table.names :])}</tr>"
    yield "</tbody></table></div>"
    if folded:
        yield "</details>"


def _class(is_name: bool) -> str:
    return ' class="name"' if is_name else ""
