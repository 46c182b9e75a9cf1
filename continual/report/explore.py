"""What the page's charts draw: a row for each mark, from tables that are read as CSV in the browser."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from continual.identity import canonical
from continual.report import charts
from continual.report.boundaries import MARK, boundary_groups
from continual.report.charts import Chart, Select
from continual.report.forgetting import PAST
from continual.report.grouping import ABSENT, rank
from continual.report.layout import Layout
from continual.report.looks import page_looks
from continual.report.measures import heading, in_words
from continual.report.runs import Runs
from continual.report.sensitivity import Ablation, Surface
from continual.report.statistics import curve, is_measured, mean_interval, scored_tasks
from continual.report.tables import format_value

LINES = 120
"""Of more groups, the curves of those of best rank are on the page."""
SHOWN = 12
"""How many lines are drawn when the page opens."""
VALUES = 60_000
"""How many points all curves of one measure have together, at most."""
COMPARED = 24
"""Of more groups each is compared with the best alone."""
BLOCKS = 40
"""A matrix of more tasks shows means of blocks."""


_LOST = ("diverged", "failed", "unfinished")
_NO_MEASURES = ("run", "group", "status", "task", "task_type", "step")


@dataclass(frozen=True)
class Line:
    """A line of the page: its number, which is its place in the ranking, its name and its config keys.

    The name has a mark, if its method knows task boundaries.
    `scores` are the means in each environment, as texts; `shown` is whether it is drawn at the start.
    """

    number: int
    label: str
    keys: Mapping[str, str]
    scores: Sequence[str]
    runs: int
    shown: bool


@dataclass(frozen=True)
class Explorer:
    """The interactive part of a page.

    Attributes:
        lines: in the order of their rank.
        panels: the environments; "" where there is one alone.
        filters: config keys with several values among the lines, and these values.
        tables: what the charts draw, by name, as CSV.
        looks: by channel, one for each line.
        runs: a row per run, for the table of all runs.
    """

    lines: list[Line]
    panels: list[str]
    filters: dict[str, list[str]]
    tables: dict[str, str]
    looks: dict[str, list[Any]]
    runs: list[dict[str, str]]


class Explore:
    """Makes the charts of a report and the tables that they draw."""

    def __init__(self, runs: Runs, layout: Layout) -> None:
        self.runs, self.layout = runs, layout
        self.numbers = {label: number for number, label in enumerate(layout.labels)}
        self.looks = page_looks(len(layout.labels))
        self.style = charts.styles("line", range(len(layout.labels)), self.looks)
        self.tables: dict[str, pd.DataFrame] = {}
        best = layout.summary[layout.summary["label"].map(self.numbers) < LINES]
        self.curved = {int(str(group)): self._names(row) for group, row in best.iterrows()}
        self.tasks = {group: rows for group, rows in scored_tasks(runs).items() if group in self.curved}

    def totals(self) -> Chart:
        """The score of each group and of its runs."""
        layout = self.layout
        rows = layout.summary.assign(line=layout.summary["label"].map(self.numbers))
        self.tables["totals"] = rows[["line", "panel", "label", "rank", "score", "low", "high", "n", *_LOST]]
        members = self.runs.runs.join(rows[["line", "panel", "label", "rank"]], on="group", how="inner")
        members = members.assign(
            run=members.index, command=[command(self.runs, run) for run in members.index]
        )
        columns = ["run", "line", "panel", "label", "rank", "seed", "score", "status", "command"]
        self.tables["runs"] = members[columns].dropna(subset="score")
        spec = charts.totals_chart(layout.score.words, self.style)
        return Chart("totals", f"{layout.score.heading} of each group: mean, interval, runs as ticks.", spec)

    def over_tasks(self) -> Chart | None:
        """Any column of tasks.csv over tasks; those after a fraction of each task also within tasks."""
        measures = [name for name in self._measured() if "/" not in name]
        if not measures:
            return None
        within = _within_tasks(measures)
        self.tables["curves"] = self._curves(measures, within)
        first = self.layout.score.name
        options = [(number, in_words(name)) for number, name in enumerate([*measures, *within])]
        chosen = measures.index(first) if first in measures else 0
        select = Select("measure", "measure", options)
        words = "A measure per task, a line for each group."
        return Chart("curves", words, charts.curves_chart("task", self.style, chosen), [select])

    def each_run(self) -> Chart | None:
        """What the score is the mean of, over tasks, of each run alone; None if no group has several runs."""
        names = {group: self.runs.scores[group].name for group in self.tasks}
        curves = {
            group: rows.pivot(index="run", columns="task", values=names[group])
            for group, rows in self.tasks.items()
            if is_measured(rows, names[group])
        }
        if not any(len(table) > 1 for table in curves.values()):
            return None
        points = max(10, min(100, VALUES // sum(map(len, curves.values()))))
        parts = []
        for table in curves.values():
            task_P, value_RP = _blocks(table, points)
            runs = np.repeat(table.index.to_numpy(), len(task_P))
            columns = {"run": runs, "task": np.tile(task_P, len(table)), "value": value_RP.ravel()}
            parts.append(pd.DataFrame(columns))
        self.tables["each"] = pd.concat(parts, ignore_index=True)
        measured = dict.fromkeys(names.values())
        words = in_words(next(iter(measured))) if len(measured) == 1 else "score"
        return Chart(
            "each",
            f"{heading(words)} per task, a line for each run.",
            charts.each_run_chart(words, self.style),
        )

    def by_layer(self) -> list[Chart]:
        """The measures that each layer has, a chart for each layer."""
        columns = [name for name in self._measured() if "/" in name]
        families = list(dict.fromkeys(name.partition("/")[0] for name in columns))
        layers = list(dict.fromkeys(name.partition("/")[2] for name in columns))
        if not columns:
            return []
        self.tables["layers"] = self._curves([f"{f}/{layer}" for f in families for layer in layers], {})
        select = Select("family", "measure", [(i, in_words(name)) for i, name in enumerate(families)])
        return [
            Chart(
                f"layer-{place}",
                f"A measure of the layer {layer} per task.",
                charts.layer_chart(layer, place, self.style, 0, len(layers)),
                [select] if place == 0 else [],
                narrow=True,
            )
            for place, layer in enumerate(layers)
        ]

    def pairs(self) -> list[tuple[int, int]]:
        """The groups that are compared, the better one first: those of one stream of tasks.

        Of many groups, each is compared with the best alone.
        """
        by_rank = self.layout.summary.sort_values("rank", kind="stable")
        alike: dict[tuple[object, str], list[int]] = {}
        for group, panel in by_rank["panel"].items():
            values = self.runs.configs[int(str(group))].values
            tasks = canonical({key: value for key, value in values.items() if key.startswith("env.")})
            alike.setdefault((panel, tasks), []).append(int(str(group)))
        pairs = []
        for groups in alike.values():
            few = len(groups) <= COMPARED
            pairs += list(combinations(groups, 2)) if few else [(groups[0], other) for other in groups[1:]]
        return pairs

    def comparisons(self, compared: pd.DataFrame) -> Chart | None:
        """Each group against another of the same environment, in both directions."""
        turned = compared.rename(columns={"x": "y", "y": "x"}).assign(
            difference=-compared["difference"],
            low=-compared["high"],
            high=-compared["low"],
            probability=1 - compared["probability"],
        )
        both = pd.concat([compared, turned], ignore_index=True).dropna(subset="difference")
        labels, panels = self.layout.summary["label"], self.layout.summary["panel"]
        both = both.assign(
            line=both["x"].map(labels).map(self.numbers),
            label=both["x"].map(labels),
            reference=both["y"].map(labels),
            panel=both["x"].map(panels),
            better=both["probability"].map("{:.2f}".format),
        )
        if both.empty:
            return None
        columns = ["line", "panel", "label", "reference", "difference", "low", "high", "pairs", "better"]
        self.tables["comparisons"] = both[columns]
        options = [(label, label) for label in self.layout.labels if (both["reference"] == label).any()]
        spec = charts.comparisons_chart(self.layout.score.words, self.style, options[0][0])
        words = "The difference of each group from one, with its interval."
        return Chart("comparisons", words, spec, [Select("reference", "compared with", options)])

    def past_tasks(
        self, past: Mapping[int, pd.DataFrame], matrices: Mapping[int, NDArray[np.float64]]
    ) -> list[Chart]:
        """What is left of a task's accuracy as others follow, and the accuracies of one group as a matrix."""
        parts = []
        for group, rows in past.items():
            if group in self.curved and rows["task"].max() > 0:
                found = curve(rows, PAST).rename(columns={"mean": "m0", "low": "l0", "high": "h0"})
                parts.append(found.assign(**self.curved[group]))
        if not parts:
            return []
        self.tables["past"] = pd.concat(parts)
        spec = charts.curves_chart("tasks since it was learned", self.style, 0, "past")
        made = [Chart("past", "Test accuracy over how many tasks ago a task was learned.", spec)]
        rows, options = [], []
        for group, names in sorted(self.curved.items(), key=lambda pair: pair[1]["line"]):
            if group in matrices:
                rows.append(_cells(matrices[group]).assign(**names))
                options.append((names["line"], names["label"]))
        self.tables["matrix"] = pd.concat(rows)
        tasks = int(self.tables["matrix"]["after"].nunique())
        select = Select("of", "group", list(dict.fromkeys(options)))
        spec = charts.matrix_chart(options[0][0], tasks)
        return [*made, Chart("matrix", "Test accuracy on each task after each later one.", spec, [select])]

    def surfaces(self, found: Sequence[Surface]) -> list[Chart]:
        """The score over two numbers of a method, a chart for each surface."""
        parts, made = [], []
        values = pd.concat([surface.cells["score"] for surface in found]).dropna()
        domain = (float(values.min()), float(values.max()))
        for number, surface in enumerate(found):
            cells = surface.cells
            parts.append(
                cells[["score", "low", "high", "n", "diverged"]].assign(
                    surface=number,
                    row=cells["row"].map(format_value),
                    column=cells["column"].map(format_value),
                    best=(cells.index == surface.best).astype(int),
                    words=[
                        (
                            "-"
                            if np.isnan(cell["score"])
                            else re.sub(r"^(-?)0\.", r"\1.", f"{cell['score']:.3g}")
                        )
                        + ("*" if cell["diverged"] else "")
                        for _, cell in cells.iterrows()
                    ],
                )
            )
            title = ", ".join(filter(None, (surface.panel, surface.title)))
            spec = charts.surface_chart(
                title,
                surface.row_key.rpartition(".")[2],
                surface.column_key.rpartition(".")[2],
                surface.score.words,
                [format_value(value) for value in reversed(surface.rows)],
                [format_value(value) for value in surface.columns],
                domain,
                number,
            )
            words = f"{surface.score.heading} over {surface.row_key} and {surface.column_key}, {title}."
            made.append(Chart(f"surface-{number}", words, spec, narrow=True))
        self.tables["cells"] = pd.concat(parts)
        return made

    def effects(self, found: Sequence[Ablation], runs: Runs) -> list[Chart]:
        """The score over the values of one key, a chart for each key.

        They may be of other runs than the page's; then no choice of lines changes them.
        """
        own = runs is self.runs
        parts, made = [], []
        for number, effect in enumerate(found):
            lines = [
                # Where the choice of an environment changes nothing, a line's name has to tell of it.
                (panel, name if own or not panel else f"{panel}, {name}", members)
                for panel, name, members in effect.lines
            ]
            names = list(dict.fromkeys(name for _, name, _ in lines))
            for panel, name, members in lines:
                parts.append(
                    members[["score", "low", "high", "n"]].assign(
                        effect=number,
                        panel=panel,
                        name=name,
                        line=members["label"].map(self.numbers) if own else -1,
                        value=members[effect.key].map(format_value),
                    )
                )
            look = charts.styles("name", names, page_looks(len(names)))
            values = [format_value(value) for value in effect.values]
            spec = charts.effect_chart(effect.key, effect.score.words, values, number, look)
            made.append(
                Chart(f"effect-{number}", f"{effect.score.heading} by {effect.key}.", spec, narrow=True)
            )
        self.tables["effects"] = pd.concat(parts)
        return made

    def explorer(self) -> Explorer:
        """What the charts share."""
        summary = self.layout.summary
        panels = [str(panel) for panel in summary["panel"].unique()]
        keys = [key for key in self.layout.line_keys if key in summary]
        lines = []
        knowing = boundary_groups(self.runs)
        for number, label in enumerate(self.layout.labels):
            members = summary[summary["label"] == label]
            scores = members.set_index("panel")["score"]
            lines.append(
                Line(
                    number,
                    f"{label} {MARK}" if knowing.intersection(members.index) else label,
                    {key: format_value(members[key].iloc[0]) for key in keys},
                    [f"{scores[panel]:.3f}" if panel in scores else "-" for panel in panels],
                    int(members["n"].sum()),
                    number < SHOWN,
                )
            )
        filters = {
            key: list(dict.fromkeys(format_value(value) for value in _sorted(summary[key])))
            for key in keys
            if summary[key].map(canonical).nunique() > 1
        }
        return Explorer(
            lines,
            panels,
            filters,
            {name: _csv(table) for name, table in self.tables.items()},
            self.looks,
            self._all_runs(),
        )

    def _all_runs(self) -> list[dict[str, str]]:
        folders = [os.path.abspath(folder) for folder in self.runs.runs["folder"]]
        top = os.path.commonpath(folders) if len(folders) > 1 else os.path.dirname(folders[0])
        labels = self.layout.summary["label"]
        names = [labels.get(group, "-") for group in self.runs.runs["group"]]
        order = pd.Series(names, index=self.runs.runs.index).map(self.numbers).fillna(len(labels))
        return [
            {
                "group": names[place],
                "seed": str(self.runs.runs.at[run, "seed"]),
                "status": self.runs.runs.at[run, "status"],
                "score": _number(self.runs.runs.at[run, "score"]),
                "folder": os.path.relpath(folders[place], top),
                "command": command(self.runs, run),
            }
            for run in order.sort_values(kind="stable").index
            for place in (self.runs.runs.index.get_loc(run),)
        ]

    def _names(self, row: "pd.Series[Any]") -> dict[str, Any]:
        return {"line": self.numbers[row["label"]], "panel": row["panel"], "label": row["label"]}

    def _measured(self) -> list[str]:
        """The columns of tasks.csv that all runs of some group have values of."""
        known = dict.fromkeys(name for rows in self.tasks.values() for name in rows)
        return [
            name
            for name in known
            if name not in _NO_MEASURES and any(is_measured(rows, name) for rows in self.tasks.values())
        ]

    def _curves(self, measures: Sequence[str], within: Mapping[str, Mapping[float, str]]) -> pd.DataFrame:
        """A row per group and task, with m<i>, l<i> and h<i> of the i-th measure."""
        points = max(20, min(100, VALUES // 10 // max(1, len(self.tasks))))
        parts = []
        for group, rows in self.tasks.items():
            values = {
                name: rows.pivot(index="run", columns="task", values=name)
                for name in measures
                if name in rows
            }
            values = {name: table for name, table in values.items() if table.notna().all(axis=None)}
            parts += _intervals(values, measures, points, self.curved[group])
            for place, (_, fractions) in enumerate(within.items(), start=len(measures)):
                inner = {fraction: values[name] for fraction, name in fractions.items() if name in values}
                if inner:
                    parts.append(_inner(inner, place, points).assign(**self.curved[group]))
        table = pd.concat(parts, ignore_index=True)
        front = ["line", "panel", "label", "task", "n"]
        return table[[*front, *(name for name in table if name not in front)]]


def command(runs: Runs, run: int) -> str:
    """The command that makes this run again."""
    return shlex.join(["python", "scripts/train.py", *runs.commands[run]])


def _intervals(
    values: Mapping[str, pd.DataFrame], measures: Sequence[str], points: int, names: Mapping[str, Any]
) -> list[pd.DataFrame]:
    """The means and intervals of measures, each [seeds, tasks], as one part of a table."""
    if not values:
        return []
    blocks = {name: _blocks(table, points) for name, table in values.items()}
    task_P = next(iter(blocks.values()))[0]
    columns: dict[str, Any] = {"task": task_P}
    together = mean_interval(np.concatenate([value_RP for _, value_RP in blocks.values()], axis=1), 1_000)
    for place, name in enumerate(blocks):
        here = slice(place * len(task_P), (place + 1) * len(task_P))
        number = measures.index(name)
        for kind, ends in zip("mlh", together, strict=True):
            columns[f"{kind}{number}"] = ends[here]
    columns["n"] = len(next(iter(values.values())))
    return [pd.DataFrame(columns).assign(**names)]


def _blocks(table: pd.DataFrame, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values [runs, tasks] as means over at most `points` blocks of tasks: the tasks [P], and [runs, P]."""
    tasks = table.columns.to_numpy()
    block_of = np.arange(len(tasks)) // -(-len(tasks) // points)
    starts = np.flatnonzero(np.diff(block_of, prepend=-1))
    counts = np.diff(starts, append=len(tasks))
    return np.add.reduceat(tasks, starts) / counts, np.add.reduceat(
        table.to_numpy(float), starts, axis=1
    ) / counts


def _within_tasks(measures: Sequence[str]) -> dict[str, dict[float, str]]:
    """The measures that are taken after fractions of a task: for each its columns, by fraction."""
    found: dict[str, dict[float, str]] = {}
    for name in measures:
        measure, at, fraction = name.partition("@")
        if at and measure in measures:
            found.setdefault(f"{measure}@within", {1.0: measure})[float(fraction)] = name
    return {name: dict(sorted(fractions.items())) for name, fractions in found.items()}


def _inner(values: Mapping[float, pd.DataFrame], place: int, points: int) -> pd.DataFrame:
    """A measure after fractions of tasks, at `task + fraction`; of many tasks the first and last ones."""
    tables = []
    for fraction, table in values.items():
        if len(table.columns) * len(values) > 4 * points:
            few = max(1, 2 * points // len(values))
            table = table[[*table.columns[:few], *table.columns[-few:]]]
        mean, low, high = mean_interval(table.to_numpy(float), 1_000)
        task = table.columns.to_numpy() + fraction
        tables.append(
            pd.DataFrame(
                {"task": task, f"m{place}": mean, f"l{place}": low, f"h{place}": high, "n": len(table)}
            )
        )
    return pd.concat(tables).sort_values("task")


def _cells(accuracy_KM: NDArray[np.float64]) -> pd.DataFrame:
    """The cells of a matrix [after task, on task] that has values below its diagonal."""
    size = -(-len(accuracy_KM) // BLOCKS)
    blocks = range(0, len(accuracy_KM), size)
    rows = []
    for after in blocks:
        for on in (start for start in blocks if start <= after):
            block = accuracy_KM[after : after + size, on : on + size]
            rows.append({"after": after, "on": on, "accuracy": float(np.nanmean(block))})
    return pd.DataFrame(rows)


def _sorted(values: "pd.Series[Any]") -> list[Any]:
    return sorted({canonical(value): value for value in values if value != ABSENT}.values(), key=rank)


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, float_format="%.5g", lineterminator="\n"))


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.4f}"
