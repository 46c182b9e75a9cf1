"""The command line of the report: `python scripts/report.py FOLDER... [--output DIR]`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import UserError
from continual.report.escaping import printable
from continual.report.sizes import SIZES

if TYPE_CHECKING:
    from continual.report.content import Report, Section

# Figures, each with what is left out of it so that the same runs give the same file.
_FORMATS: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write the files and name them; 1 after a user's error, else 0."""
    parser = argparse.ArgumentParser(
        description="Average runs over their seeds, grouped by whatever config keys differ, and write "
        "tables (CSV, Markdown), figures (PNG, PDF, SVG) and one page with all of them (HTML).",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="searched for runs at any depth"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="written to (default: report/ in first FOLDER)"
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="runs that the others were chosen by: of them only sensitivity and ablations are shown",
    )
    parser.add_argument(
        "--by",
        type=lambda text: text.split(","),
        default=[],
        metavar="KEY,...",
        help="name groups by these keys alone, such as agent; refused if that would average over others",
    )
    parser.add_argument(
        "--best", action="store_true", help="of each agent its best configuration alone, in each environment"
    )
    parser.add_argument(
        "--measure",
        type=lambda text: text.split(","),
        default=None,
        metavar="COLUMN,...",
        help="the columns of tasks.csv that have figures, such as srank,dead_unit_fraction",
    )
    parser.add_argument(
        "--size", choices=SIZES, help="figures as wide as a column of this venue, without titles"
    )
    parser.add_argument(
        "--formats",
        type=_formats,
        default=list(_FORMATS),
        metavar="FORMAT,...",
        help=f"of figures: one or more of {','.join(_FORMATS)} (default: all)",
    )
    parser.add_argument("--latex", action="store_true", help="the tables as LaTeX too, in report.tex")
    parser.add_argument(
        "--data",
        action="store_true",
        help="runs.csv and tasks.csv too (with --measure, its columns alone), from which a report can be "
        "made again without the run folders",
    )
    options = parser.parse_args(arguments)
    try:
        write_report(
            options.folders,
            options.output or options.folders[0] / "report",
            sweep=options.sweep,
            by=options.by,
            best=options.best,
            measures=options.measure,
            size=options.size,
            formats=options.formats,
            latex=options.latex,
            data=options.data,
        )
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _formats(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in _FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_FORMATS)}")
    return names


def write_report(
    folders: Sequence[Path],
    output: Path,
    *,
    sweep: Sequence[Path] = (),
    by: Sequence[str] = (),
    before: "Sequence[Section]" = (),
    best: bool = False,
    measures: Sequence[str] | None = None,
    size: str | None = None,
    formats: Sequence[str] = tuple(_FORMATS),
    latex: bool = False,
    data: bool = False,
) -> None:
    """Print the table of the runs below `folders` and write the report on them to `output`.

    `sweep` are folders of the runs that those were chosen by, `by` the keys that name a group,
    `before` sections that come first. With `best`, each agent's best configuration is reported on, and
    the effect of its numbers is shown from all. `measures` are the columns of tasks.csv that have
    figures, `size` one of SIZES, `formats` some of png, pdf and svg. Raises UserError if a folder is
    missing, holds no runs or cannot be written to, if `by` does not tell the groups apart, or if no run
    has a measure.
    """
    from rich.console import Console

    from continual.report.choice import only_best
    from continual.report.content import build
    from continual.report.figures import drawing
    from continual.report.forgetting import accuracy_matrices
    from continual.report.runs import load
    from continual.report.statistics import summarise
    from continual.report.study import write_study
    from continual.report.tables import terminal_table

    runs = load(*folders, by=by)
    swept = load(*sweep) if sweep else None
    everything = runs
    if best:
        runs, sentence = only_best(runs)
        runs.notes.insert(0, sentence)
        swept = everything if swept is None else swept
    for measure in measures or ():
        runs.measured(measure)
    summary = summarise(runs)
    try:
        with drawing(SIZES[size] if size else None):
            report = build(runs, swept, before, summary=summary, measures=measures)
            output.mkdir(parents=True, exist_ok=True)
            paths = [*_write_files(report, output, formats, latex)]
            if data:
                accuracies, _ = accuracy_matrices(everything)
                paths = [*write_study(everything, accuracies, output, measures), *paths]
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    # What cannot be printed any more, as into `head`, is written all the same. Squeezed into a narrow
    # window, a table would lose names: the terminal may break its lines.
    console = Console(width=1000)
    console.print(terminal_table(runs, summary))
    sentences = [*runs.notes, *runs.damaged]
    if not summary["n"].any():
        sentences.append("No run is complete yet, so there is no figure of them.")
    for line in (*sentences, *map(str, paths)):
        console.print(printable(line), soft_wrap=True, markup=False, highlight=False)


def _write_files(report: "Report", output: Path, formats: Sequence[str], latex: bool) -> Iterator[Path]:
    """Write all files of a report and tell their paths, the page last."""
    from continual.report.latex import latex as latex_tables
    from continual.report.markdown import markdown
    from continual.report.page import html_page
    from continual.report.tables import write_csv

    for name, table in report.data.items():
        path = output / f"{name}.csv"
        write_csv(table, path)
        yield path
    for picture in report.pictures:
        figure = picture.draw()
        for kind in formats:
            path = output / f"{picture.name}.{kind}"
            figure.savefig(path, dpi=200, metadata=_FORMATS[kind])
            yield path
    if latex:
        (output / "report.tex").write_text(latex_tables(report), encoding="utf-8")
        yield output / "report.tex"
    for name, text in (("report.md", markdown(report, formats)), ("report.html", html_page(report))):
        path = output / name
        path.write_text(text, encoding="utf-8")
        yield path
