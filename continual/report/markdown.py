"""A report as Markdown, beside its figures."""

from collections.abc import Iterable, Sequence

from continual.report.content import Report, Table


def markdown(report: Report) -> str:
    """The report's source; figures are PNG files in the same folder."""
    lines = [f"# {report.title}", ""]
    for note in report.notes:
        lines += [note, ""]
    for section in report.sections:
        lines += [f"## {section.title}", ""]
        for paragraph in section.text:
            lines += [paragraph, ""]
        for picture in section.pictures:
            lines += [f"![{picture.description}]({picture.name}.png)", ""]
        for table in section.tables:
            lines += [*_table(table), ""]
    return "\n".join(lines)


def _table(table: Table) -> Iterable[str]:
    yield f"{table.caption}:"
    yield ""
    yield _row(table.head)
    yield _row([":--" if place < table.names else "--:" for place in range(len(table.head))])
    for row in table.rows:
        yield _row(row)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
