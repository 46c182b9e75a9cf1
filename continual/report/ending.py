"""What the terminal shows when a command has trained its runs: the best groups, and the next command."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from continual.report.runs import Runs

log = logging.getLogger(__name__)

MOST_RUNS = 200
"""Of more runs no table is made: reading their folders would be waited for."""
MOST_ROWS = 8
_SPARE = 60  # characters


def show_ending(folder: Path, runs: Sequence[Path], trained: int) -> None:
    """Print the best configuration of each agent in each environment, and the command that makes a report.

    `runs` are the folders of all runs that were asked for, below `folder` or `folder` itself, of which
    `trained` are finished. The results are written by now: nothing that goes wrong here is raised.
    """
    from rich.console import Console

    try:
        console = Console(markup=False, highlight=False, emoji=False)
        if 1 < len(runs) <= MOST_RUNS and trained:
            from continual.report.runs import load

            table = best_table(load(*(run for run in runs if run.is_dir())))
            if table is not None:
                console.print(table)
        if len(runs) > 1:
            console.print(f"{trained} of {len(runs)} runs finished")
        if trained:
            console.print(f"report: python scripts/report.py {shlex.quote(str(folder))}", soft_wrap=True)
    except Exception as error:  # whatever it is, the runs are done and their command has not failed
        log.debug("no overview of %s: %s", folder, error)


def best_table(runs: "Runs") -> "Table | None":
    """A row for the best configuration of each agent in each environment; None if no run is completed."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from continual.report.escaping import printable
    from continual.report.grouping import ABSENT
    from continual.report.layout import common_score
    from continual.report.tables import format_value

    best = runs.best()
    if best.empty:
        return None
    places = [key for key in runs.shown if key in ("env", "env/dataset")]
    keys = [key for key in runs.shown if key not in ("agent", *places)]
    caption = f"score: {common_score(runs).words}, mean over seeds"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for head in (*places, "agent"):
        table.add_column(head, overflow="fold")
    is_chosen = bool((best["configurations"] + best["diverged"] > 1).any())
    if is_chosen:
        table.add_column("best configuration", overflow="fold")
    for head in ("score", "seeds"):
        table.add_column(head, justify="right")
    for group, row in best.head(MOST_ROWS).iterrows():
        config = runs.configs[int(str(group))]
        texts = [str(config.options.get(name, "-")) for name in (*places, "agent")]
        if is_chosen:
            words = [f"{key}={format_value(row[key])}" for key in keys if row[key] != ABSENT]
            texts.append(" ".join([*_shortened(words), f"(of {row['configurations']})"]))
        table.add_row(*(Text(printable(text)) for text in texts), f"{row['score']:.4f}", str(row["seeds"]))
    if len(best) > MOST_ROWS:
        table.caption = f"and {len(best) - MOST_ROWS} more; {caption}"
    return table


def _shortened(words: Sequence[str]) -> list[str]:
    """As many of the words as there is room for."""
    kept: list[str] = []
    for word in words:
        if kept and len(" ".join([*kept, word])) > _SPARE:
            return [*kept, "..."]
        kept.append(word)
    return kept
