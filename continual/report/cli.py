"""The command line of the report: `python scripts/report.py FOLDER... [--output DIR]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from continual.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write the files and name them; 1 after a user's error, else 0."""
    parser = argparse.ArgumentParser(
        description="Average runs over their seeds, grouped by whatever config keys differ, "
        "and write a table (CSV) and a figure (PNG) of online accuracy per task.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="searched for runs at any depth"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="written to (default: report/ in first FOLDER)"
    )
    options = parser.parse_args(arguments)
    try:
        write_report(options.folders, options.output or options.folders[0] / "report")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write_report(folders: Sequence[Path], output: Path) -> None:
    """Print the table of the runs below `folders` and write it with its figure to `output`.

    Raises UserError if a folder is missing, holds no runs or cannot be written to.
    """
    from rich.console import Console

    from continual.report.figures import online_accuracy_figure
    from continual.report.runs import load_runs
    from continual.report.statistics import online_accuracy, summarise
    from continual.report.tables import terminal_table, write_csv

    # Squeezed into a narrow window, a table would lose names: the terminal may break its lines.
    console = Console(width=1000)
    runs = load_runs(folders)
    summary = summarise(runs)
    console.print(terminal_table(runs, summary))
    for note in runs.notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)

    written = [output / "report.csv", output / "online_accuracy.csv"]
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_csv(summary, written[0])
        write_csv(online_accuracy(runs), written[1])
        if summary["n"].any():
            written.append(output / "online_accuracy.png")
            online_accuracy_figure(runs).savefig(written[-1], dpi=200)
        else:
            console.print("No run is complete yet, so there is no figure.")
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    for path in written:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)
