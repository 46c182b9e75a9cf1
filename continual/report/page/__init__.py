"""A report as one HTML page that needs nothing else: charts, the library that draws them, and their data."""

import base64
import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from continual.report.content import Report
from continual.report.escaping import printable
from continual.report.looks import DARK_PALETTE, PALETTE

LONG = 25
"""Tables of more rows are folded."""

_DARK = dict(zip(PALETTE, DARK_PALETTE, strict=True))
_SCRIPTS = ("vega/vega.min.js", "vega/vega-lite.min.js", "vega/vega-embed.min.js", "page.js")


@dataclass(frozen=True)
class Live:
    """Of a page from a server: its version (the ETag), and after how many seconds it asks for a newer one."""

    version: str
    every: float


def html_page(report: Report, live: Live | None = None) -> str:
    """The page's source, complete; with `live` it renews itself from the server that it came from."""
    scripts = [_script(name) for name in _SCRIPTS] if report.explorer else []
    renewing = _script("live.js") if live else ""
    template = _templates().get_template("page.html")
    return template.render(
        report=report,
        explorer=report.explorer,
        data=_data(report),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in [*scripts, *([renewing] if live else [])]],
        live=live,
        renewing=Markup(renewing),
        style=Markup(_text("page.css")),
        dark=_DARK,
        long=LONG,
    )


def _data(report: Report) -> Markup:
    """What the page's script reads, as JSON that no text in it can end."""
    explorer = report.explorer
    if explorer is None:
        return Markup("null")
    content = {
        "specs": {chart.name: chart.spec for section in report.sections for chart in section.charts},
        "tables": {
            name: table
            for name, table in explorer.tables.items()
            if any(name in chart.tables for section in report.sections for chart in section.charts)
        },
        "lines": [asdict(line) for line in explorer.lines],
        "panels": explorer.panels,
        "colors": _DARK,
    }
    text = json.dumps(content, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@functools.cache
def _templates() -> Environment:
    templates = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    return templates


def _script(name: str) -> str:
    # What the map of a source is called is of no use without the source.
    return re.sub(r"//# sourceMappingURL=\S+\s*", "", _text(name))


def _hash(script: str) -> str:
    """How the page's policy names a script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def _text(name: str) -> str:
    file: Traversable = resources.files("continual.report.page")
    for part in name.split("/"):
        file = file / part
    return file.read_text(encoding="utf-8")
