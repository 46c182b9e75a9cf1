"""What every figure agrees on: which groups are drawn, in which panel, under which label, in which style."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from continual.identity import canonical
from continual.report.grouping import ABSENT
from continual.report.looks import STYLES, line_style
from continual.report.names import display_name
from continual.report.runs import Runs
from continual.report.score import MIXED, Score
from continual.report.statistics import summarise
from continual.report.tables import format_value

SECOND_AGENT = "agent@agent.plus"
"""The config group of what an agent is combined with."""


@dataclass(frozen=True)
class Layout:
    """Where the groups go.

    Attributes:
        summary: `summarise`'s rows of the groups with a completed run, with their `panel`, `label` and `rank`
            in the panel, from 1 for the best.
        drawn: those of them that figures by style show, by panel and rank. Of more labels than there are
            styles (35) these are the ones of best rank.
        score: what runs are compared by; where panels differ in that, a score of no name.
        panel_keys: the keys that name a panel, those of the environment.
        implied_keys: other keys, such as env.num_tasks, with one value in each panel, if not the same in all.
        line_keys: the other keys, which name a line.
        labels: the labels of `summary`, the best first.
        styles: for each label in `drawn` Matplotlib's line properties, the same in all panels.
    """

    summary: pd.DataFrame
    drawn: pd.DataFrame
    score: Score
    panel_keys: list[str]
    implied_keys: list[str]
    line_keys: list[str]
    labels: list[str]
    styles: Mapping[str, Mapping[str, Any]]

    @property
    def left_out(self) -> int:
        """How many groups with completed runs are not drawn."""
        return len(self.summary) - len(self.drawn)

    def implied(self) -> list[str]:
        """What goes with each panel, as sentences."""
        if not self.implied_keys:
            return []
        firsts = self.summary.drop_duplicates("panel")
        return [f"{row['panel']}: {label(row, self.implied_keys)}." for _, row in firsts.iterrows()]

    def panels(self) -> list[tuple[str, pd.DataFrame]]:
        """Title and drawn groups of each panel."""
        return [(str(title), members) for title, members in self.drawn.groupby("panel", sort=False)]


def lay_out(runs: Runs, summary: pd.DataFrame | None = None) -> Layout:
    """The layout of these runs; `summary` is what `summarise` says of them, if it is known."""
    panel_keys = [key for key in runs.shown if key in ("env", "env/dataset")]
    implied_keys = _implied_keys(runs, panel_keys)
    line_keys = [key for key in runs.shown if key not in (*panel_keys, *implied_keys)]
    done = (summarise(runs) if summary is None else summary).query("n > 0")
    done = done.assign(
        panel=_labels(done, panel_keys),
        label=[label or "all runs" for label in _labels(done, line_keys)],
    )
    signs = done.index.map(lambda group: runs.scores[group].sign)
    done["rank"] = (done["score"] * signs).groupby(done["panel"]).rank(ascending=False, method="first")
    labels = list(done.groupby("label", sort=False)["rank"].mean().sort_values(kind="stable").index)
    styles = {label: line_style(place) for place, label in enumerate(labels[:STYLES])}
    # Panels stay in the order in which they come, their groups go by rank.
    panel = done["panel"].map({name: place for place, name in enumerate(done["panel"].unique())})
    ordered = done.assign(place=panel).sort_values(["place", "rank"]).drop(columns="place")
    drawn = ordered[ordered["label"].isin(styles)]
    return Layout(done, drawn, common_score(runs), panel_keys, implied_keys, line_keys, labels, styles)


def common_score(runs: Runs) -> Score:
    """What all runs are compared by; where that differs, a score of no name."""
    scores = dict.fromkeys(runs.scores)
    return next(iter(scores)) if len(scores) == 1 else MIXED


def common_names(runs: Runs) -> list[str]:
    """The names of the options that all runs share."""
    return [display_name(group, option) for group, option in runs.common.items()]


def wrapped(name: str) -> str:
    """A name in up to three lines, which leave room for what it names.

    It is not cut after the first, because names often differ at their ends only.
    """
    return textwrap.fill(
        name, width=48, max_lines=3, placeholder="\N{HORIZONTAL ELLIPSIS}", break_on_hyphens=False
    )


def about(runs: Runs, layout: Layout) -> str:
    """What the drawn groups have in common, how many runs they are means of, and what is missing."""
    fewest, most = layout.drawn["n"].min(), layout.drawn["n"].max()
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    words = [*common_names(runs), f"{count} seed{'' if most == 1 else 's'}"]
    if most > 1:
        words.append("95 % intervals")
    if layout.left_out:
        words.append(f"{layout.left_out} lower groups not drawn")
    return ", ".join(words)


def label(values: "Mapping[str, Any] | pd.Series[Any]", keys: Sequence[str]) -> str:
    """Option names as they are, other keys as `lr=0.001`; nothing for a key that is absent."""
    short = [key.rpartition(".")[2] for key in keys]
    words: list[str] = []
    for key, name in zip(keys, short, strict=True):
        if values[key] == ABSENT:
            continue
        name = name if short.count(name) == 1 else key
        is_option = "." not in key or "@" in key
        text = format_value(values[key])
        if key == SECOND_AGENT and words:
            words[-1] += f" + {display_name('agent', text)}"
        else:
            words.append(display_name(key, text) if is_option else f"{name}={text}")
    return ", ".join(words)


def _labels(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    return [label(row, keys) for _, row in rows.iterrows()]


def _implied_keys(runs: Runs, panel_keys: Sequence[str]) -> list[str]:
    """The other keys with one value for each environment, such as a network; the agent is none of them."""
    rows = [row for _, row in runs.groups.iterrows()]
    environments = [canonical([row[key] for key in panel_keys]) for row in rows]
    if len(set(environments)) < 2:
        return []
    implied = []
    for key in runs.shown:
        pairs = {(name, canonical(row[key])) for name, row in zip(environments, rows, strict=True)}
        if key not in panel_keys and key != "agent" and len(pairs) == len(set(environments)):
            implied.append(key)
    return implied
