"""Tables for the terminal and for other programs."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from continual.report.escaping import csv_text, printable
from continual.report.runs import Runs

_COUNTS = {"diverged": "diverged", "failed": "failed", "unfinished": "unfinished"}
_MEANS = {
    "first_task": "first\ntask",
    "last_task": "last\ntask",
    "last_task_test": "last task,\ntest",
}


def terminal_table(runs: Runs, summary: pd.DataFrame) -> Group:
    """The summary as a table to print; counts and means that no group has are left out."""
    common = [f"{group} {option}" for group, option in runs.common.items()]
    names = dict.fromkeys(score.heading for score in runs.scores)
    heading = Text(printable(": ".join([", ".join(names), *([", ".join(common)] if common else [])])))
    table = Table(caption="Means over seeds; 95 % percentile bootstrap interval.", caption_justify="left")
    counts = {column: head for column, head in _COUNTS.items() if summary[column].any()}
    means = {column: head for column, head in _MEANS.items() if summary[column].notna().any()}
    for key in runs.shown:
        table.add_column(Text(printable(key).replace(".", ".\n")))
    for head in ("seeds", *counts.values(), "score", "95 %\ninterval", *means.values()):
        table.add_column(head, justify="right")

    for _, row in summary.iterrows():
        table.add_row(
            *(Text(format_value(row[key])) for key in runs.shown),
            *(str(row[column]) for column in ("n", *counts)),
            _accuracy(row["score"]),
            f"{_accuracy(row['low'])} to {_accuracy(row['high'])}" if pd.notna(row["low"]) else "-",
            *(_accuracy(row[column]) for column in means),
        )
    return Group(heading, table)


def write_csv(table: pd.DataFrame, path: Path, digits: int = 6) -> None:
    """Write a table without its index: config values as in YAML, fractions to so many digits."""
    text = {
        column: table[column].map(lambda value: csv_text(format_value(value)))
        for column in table.columns
        if not pd.api.types.is_numeric_dtype(table[column])
    }
    named = table.assign(**text).rename(columns=lambda name: csv_text(printable(str(name))))
    named.to_csv(path, index=False, float_format=f"%.{digits}g", lineterminator="\n")


def format_value(value: Any) -> str:
    """A config value as a user would type it, on one line: `0.001`, `true`, `null`, `[100, 100]`."""
    return printable(value if isinstance(value, str) else json.dumps(value, default=str))


def _accuracy(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"
