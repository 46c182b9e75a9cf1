"""A report as Markdown, beside its figures."""

from collections.abc import Iterable, Sequence

from continual.report.content import Report, Table
from continual.report.escaping import markdown_text


def markdown(report: Report) -> str:
    """The report's source; figures are PNG files in the same folder."""
    lines = [f"# {markdown_text(report.title)}", ""]
    for note in report.notes:
        lines += [markdown_text(note), ""]
    for section in report.sections:
        lines += [f"## {markdown_text(section.title)}", ""]
        for paragraph in section.text:
            lines += [markdown_text(paragraph), ""]
        for picture in section.pictures:
            lines += [f"![{markdown_text(picture.description)}]({picture.name}.png)", ""]
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
