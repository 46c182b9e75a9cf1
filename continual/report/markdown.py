"""A report as Markdown, beside its figures."""

from collections.abc import Iterable, Sequence

from continual.report.content import Report, Table
from continual.report.escaping import markdown_text

_PICTURES = ("png", "svg")
"""What is shown in place; of other formats there is a link."""


def markdown(report: Report, formats: Sequence[str] = _PICTURES) -> str:
    """The report's source; figures are in the same folder, in each of these formats."""
    pictures = [kind for kind in _PICTURES if kind in formats]
    mark, kind = ("!", pictures[0]) if pictures else ("", formats[0])
    lines = [f"# {markdown_text(report.title)}", ""]
    for note in report.notes:
        lines += [markdown_text(note), ""]
    for section in report.sections:
        lines += [f"## {markdown_text(section.title)}", ""]
        for paragraph in section.text:
            lines += [markdown_text(paragraph), ""]
        for picture in section.pictures:
            lines += [f"{mark}[{markdown_text(picture.description)}]({picture.name}.{kind})", ""]
        for table in section.tables:
            lines += [*_table(table), ""]
    return "\n".join(lines)


def _table(table: Table) -> Iterable[str]:
    yield f"{markdown_text(table.caption)}:"
    yield ""
    yield _row([markdown_text(cell) for cell in table.head])
    yield _row([":--" if place < table.names else "--:" for place in range(len(table.head))])
    for row in table.rows:
        yield _row([markdown_text(cell) for cell in row])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
