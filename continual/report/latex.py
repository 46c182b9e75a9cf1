"""A report's tables as LaTeX, with the rules of booktabs."""

from collections.abc import Iterable, Sequence

from continual.report.content import Report, Table
from continual.report.escaping import latex_text


def latex(report: Report) -> str:
    """The source of all tables, to copy from; needs `\\usepackage{booktabs}`."""
    lines = ["% \\usepackage{booktabs}", f"% {latex_text(report.title)}"]
    for section in report.sections:
        for table in section.tables:
            lines += ["", *_table(table)]
    return "\n".join([*lines, ""])


def _table(table: Table) -> Iterable[str]:
    columns = "l" * table.names + "r" * (len(table.head) - table.names)
    yield "\\begin{table}"
    yield f"\\caption{{{latex_text(table.caption)}.}}"
    yield "\\centering"
    yield f"\\begin{{tabular}}{{{columns}}}"
    yield "\\toprule"
    yield _row(table.head)
    yield "\\midrule"
    for row in table.rows:
        yield _row(row)
    yield "\\bottomrule"
    yield "\\end{tabular}"
    yield "\\end{table}"


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(latex_text, cells))} \\\\"
