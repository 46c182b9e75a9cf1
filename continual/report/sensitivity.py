"""How the result depends on a method's numbers: heat maps over two of them, lines over one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from continual.identity import canonical
from continual.report.choice import STEP_SIZE
from continual.report.figures import draw_line, headings, legend, panel_grid, plain_axis
from continual.report.grouping import ABSENT, rank
from continual.report.layout import Layout, label
from continual.report.looks import PALETTE, line_style, mark
from continual.report.runs import Runs
from continual.report.score import Score
from continual.report.tables import format_value

TOTAL = "score"


@dataclass(frozen=True)
class Surface:
    """Groups that differ in two numbers only.

    Attributes:
        panel: the environment; title: what else the groups share.
        row_key, column_key: the two numbers' config keys.
        score: what the cells are compared by.
        cells: rows of `summarise` (any `n`) with the two values as columns `row` and `column`.
    """

    panel: str
    title: str
    row_key: str
    column_key: str
    score: Score
    cells: pd.DataFrame

    @property
    def rows(self) -> list[Any]:
        """The values of the row's key, in order."""
        return _sorted_values(self.cells["row"])

    @property
    def columns(self) -> list[Any]:
        """The values of the column's key, in order."""
        return _sorted_values(self.cells["column"])

    @property
    def best(self) -> Any | None:
        """The group of the best cell without a run that diverged, if there is one."""
        eligible = self.cells[(self.cells["n"] > 0) & (self.cells["diverged"] == 0)]
        return (eligible[TOTAL] * self.score.sign).idxmax() if len(eligible) else None


def surfaces(runs: Runs, summary: pd.DataFrame, layout: Layout) -> list[Surface]:
    """All surfaces of at least 2 x 2 values.

    Strength x step size where a method has one strength that varies; where two vary, one over the
    other for each step size. A cell is one group: nothing is averaged but seeds.
    """
    keys = list(runs.groups.columns)
    numbers = [
        key for key in keys if key == STEP_SIZE or (key.startswith("agent.") and _numeric(summary[key]))
    ]
    rest = [key for key in keys if key not in numbers]
    found = []
    for members in _families(summary, rest):
        varying = [key for key in numbers if _number_of_values(members[key]) > 1]
        strengths = [key for key in varying if key != STEP_SIZE]
        if len(strengths) == 1 and STEP_SIZE in varying:
            found.append(_surface(runs, members, STEP_SIZE, strengths[0], layout, numbers))
        elif len(strengths) == 2:
            found += [
                _surface(runs, part, strengths[0], strengths[1], layout, strengths)
                for part in _families(members, [*rest, STEP_SIZE] if STEP_SIZE in keys else rest)
            ]
    return [
        surface
        for surface in found
        if _number_of_values(surface.cells["row"]) > 1 and _number_of_values(surface.cells["column"]) > 1
    ]


def surfaces_table(found: Sequence[Surface]) -> pd.DataFrame:
    """The cells of all surfaces: panel, title, both keys and values, runs by status, mean and interval."""
    columns = ["n", "diverged", "failed", "unfinished", TOTAL, "low", "high"]
    parts = [
        s.cells[["row", "column", *columns]].assign(
            panel=s.panel, title=s.title, row_key=s.row_key, column_key=s.column_key
        )
        for s in found
    ]
    front = ["panel", "title", "row_key", "row", "column_key", "column"]
    return pd.concat(parts, ignore_index=True)[[*front, *columns]]


def surfaces_figure(found: Sequence[Surface]) -> Figure:
    """A heat map per surface; a frame marks the best cell without a diverged run."""
    values = pd.concat([surface.cells[TOTAL] for surface in found])
    scale = Normalize(values.min(), values.max())
    widest = max(_number_of_values(surface.cells["column"]) for surface in found)
    tallest = max(_number_of_values(surface.cells["row"]) for surface in found)
    columns = 3 if len(found) > 4 else 2
    figure, axes = panel_grid(
        len(found), height=1.1 + 0.42 * tallest, width=0.9 + 0.66 * widest, columns=columns
    )
    for axis, surface in zip(axes, found, strict=True):
        _draw_surface(axis, surface, scale)
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, label=found[0].score.words, aspect=30)
    panel = f" on {found[0].panel}" if found[0].panel else ""
    small = "means over seeds; frame: best without a diverged run; d: diverged runs left out"
    headings(figure, axes, f"Sensitivity{panel}", small, own=True)
    return figure


@dataclass(frozen=True)
class Ablation:
    """Groups that differ in one key only, as lines over its values.

    Attributes:
        key: the config key.
        score: what the groups are compared by.
        values: its values, in the order of the axis.
        lines: panel, label and the groups of each line (rows of `summarise` with completed runs).
    """

    key: str
    score: Score
    values: list[Any]
    lines: list[tuple[str, str, pd.DataFrame]]


def ablations(runs: Runs, layout: Layout) -> list[Ablation]:
    """For each key the groups that differ in nothing else; option names such as the agent's are no axis."""
    found = []
    for key in runs.groups.columns:
        if "." not in key or key in (*layout.panel_keys, *layout.implied_keys):
            continue
        others = [other for other in runs.groups.columns if other != key]
        line_keys = [other for other in layout.line_keys if other != key]
        present = layout.summary[layout.summary[key].map(lambda value: value != ABSENT)]
        lines = [
            (members["panel"].iloc[0], label(members.iloc[0], line_keys) or "all runs", members)
            for members in _families(present, others)
            if _number_of_values(members[key]) > 1
        ]
        if lines:
            values = {canonical(value): value for _, _, members in lines for value in members[key]}
            found.append(Ablation(key, layout.score, sorted(values.values(), key=rank), lines))
    return found


def ablation_figure(ablation: Ablation) -> Figure:
    """The score over a key's values, a panel per environment.

    Of more lines than there are colours (7), one for each agent is drawn: the one through its
    best group.
    """
    panels: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for panel, name, members in ablation.lines:
        panels.setdefault(panel, []).append((name, members))
    shortened = max(map(len, panels.values())) > len(PALETTE)
    if shortened:
        panels = {panel: _best_of_each_agent(lines, ablation.score) for panel, lines in panels.items()}
    names = list(dict.fromkeys(name for lines in panels.values() for name, _ in lines))
    places = {canonical(value): place for place, value in enumerate(ablation.values)}
    figure, axes = panel_grid(len(panels), height=3.4)
    for axis, (panel, lines) in zip(axes, panels.items(), strict=True):
        for name, members in lines:
            number = names.index(name)
            x = members[ablation.key].map(lambda value: places[canonical(value)]).sort_values()
            points = members.loc[x.index].rename(columns={TOTAL: "mean"})
            draw_line(axis, x.astype(float), points, name, line_style(number), mark(number))
        axis.set_xticks(range(len(places)), [format_value(value) for value in ablation.values])
        axis.set_xlabel(ablation.key)
        axis.set_ylabel(ablation.score.words)
        axis.set_title(panel, fontsize=10)
        plain_axis(axis)
    small = "means over seeds, 95 % intervals"
    if shortened:
        small += "; of each agent the line through its best group"
    headings(figure, axes, f"Effect of {ablation.key}", small)
    legend(figure, axes)
    return figure


def _best_of_each_agent(
    lines: Sequence[tuple[str, pd.DataFrame]], score: Score
) -> list[tuple[str, pd.DataFrame]]:
    best: dict[str, tuple[str, pd.DataFrame]] = {}
    merit: dict[str, float] = {}
    for name, members in lines:
        agent = str(members["agent"].iloc[0]) if "agent" in members else ""
        reached = float((members[TOTAL] * score.sign).max())
        if agent not in best or reached > merit[agent]:
            best[agent], merit[agent] = (name, members), reached
    return list(best.values())


def _draw_surface(axis: Axes, surface: Surface, scale: Normalize) -> None:
    rows, columns = surface.rows, surface.columns
    grid = np.full((len(rows), len(columns)), np.nan)
    for _, cell in surface.cells.iterrows():
        grid[rows.index(cell["row"]), columns.index(cell["column"])] = cell[TOTAL]
    axis.pcolormesh(grid, cmap="viridis", norm=scale, edgecolors="white", linewidth=1.5)
    best = surface.best
    for group, cell in surface.cells.iterrows():
        y, x = rows.index(cell["row"]), columns.index(cell["column"])
        empty = np.isnan(grid[y, x])
        words = "-" if empty else f"{grid[y, x]:.3f}".lstrip("0")
        words += f"\n{cell['diverged']} d" if cell["diverged"] else ""
        ink = "0.35" if empty else "#fefefe" if scale(grid[y, x]) < 0.6 else "#111111"
        axis.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize="x-small", color=ink)
        if group == best:
            frame = np.array([[0.04, 0.04], [0.96, 0.04], [0.96, 0.96], [0.04, 0.96], [0.04, 0.04]])
            axis.plot(frame[:, 0] + x, frame[:, 1] + y, color="#D55E00", linewidth=2.2)
    axis.set_xticks(
        np.arange(len(columns)) + 0.5, [format_value(value) for value in columns], fontsize="x-small"
    )
    axis.set_yticks(np.arange(len(rows)) + 0.5, [format_value(value) for value in rows], fontsize="x-small")
    axis.set_xlabel(surface.column_key.rpartition(".")[2], fontsize="small")
    axis.set_ylabel(surface.row_key.rpartition(".")[2], fontsize="small")
    axis.set_title(surface.title, fontsize="small")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _surface(
    runs: Runs,
    members: pd.DataFrame,
    row_key: str,
    column_key: str,
    layout: Layout,
    numbers: Sequence[str],
) -> Surface:
    title = label(members.iloc[0], [key for key in layout.line_keys if key not in numbers])
    cells = members.assign(row=members[row_key], column=members[column_key])
    score = runs.scores[int(members.index[0])]
    return Surface(label(members.iloc[0], layout.panel_keys), title, row_key, column_key, score, cells)


def _families(rows: pd.DataFrame, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows that agree in all these keys."""
    places: dict[str, list[Any]] = {}
    for index, row in rows.iterrows():
        places.setdefault(canonical([row[key] for key in keys]), []).append(index)
    for indices in places.values():
        yield rows.loc[indices]


def _number_of_values(values: "pd.Series[Any]") -> int:
    return len({canonical(value) for value in values if value != ABSENT})


def _sorted_values(values: "pd.Series[Any]") -> list[Any]:
    return sorted({canonical(value): value for value in values}.values(), key=rank)


def _numeric(values: "pd.Series[Any]") -> bool:
    return all(
        value == ABSENT or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )
