"""Figures, by Matplotlib's object-oriented interface: no window, no global state."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from continual.errors import ConfigError
from continual.report.layout import Layout, about, lay_out, wrapped
from continual.report.looks import mark
from continual.report.measures import heading, in_words
from continual.report.runs import Runs
from continual.report.sizes import Size
from continual.report.statistics import by_seed, curve, is_measured, scored_tasks

POINTS = 100
"""A stream of more tasks is drawn as at most this many means of consecutive tasks."""
LARGE: Mapping[str, Any] = {"fontsize": "x-large", "fontweight": "bold"}
SMALL: Mapping[str, Any] = {"fontsize": "small", "color": "0.35"}


_size: ContextVar[Size | None] = ContextVar("size", default=None)


class ShownFigure(Figure):
    """A figure that a notebook shows, whether it has loaded pyplot or not."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


@contextmanager
def drawing(size: Size | None = None) -> Iterator[None]:
    """Within it figures are made and written, of this size; without one they are as wide as they need.

    Texts are shown as they are: a `$` starts no formula. A figure of a given size has no title, which is the
    caption's, and its legend below the axes.
    """
    settings: Any = {
        "text.parse_math": False,
        "svg.hashsalt": "continual",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
    }
    if size is not None:
        settings |= {"font.size": size.font}
    token = _size.set(size)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Of letters that the font lacks a box is drawn; the tables have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        try:
            yield
        finally:
            _size.reset(token)


def figure(runs: Runs, measure: str | None = None) -> Figure:
    """The `measure_figure` of these runs alone, of the score's measure if none is given.

    Raises ConfigError if no group whose runs are completed has measured it.
    """
    layout = lay_out(runs)
    measure = measure or layout.score.name
    if not any_drawn(measured_tasks(runs, measure), layout):
        runs.measured(measure)  # raises if there is no such column
        raise ConfigError(f"{measure}: no group has it of all tasks of completed runs.")
    with drawing():
        return measure_figure(runs, measure, layout)


def measure_figure(runs: Runs, measure: str, layout: Layout) -> Figure:
    """A column of tasks.csv per task: a line per group, shaded 95 % intervals, a panel per environment.

    A drawn group must have measured it. Equal labels look alike in all panels. Of more labels than there are
    styles those of best rank are drawn, and the figure says so.
    """
    tasks_of = measured_tasks(runs, measure)
    title = f"{heading(measure)} per task"
    return curves_figure(tasks_of, measure, runs, layout, title=title, y=in_words(measure), x="task")


def measured_tasks(runs: Runs, measure: str) -> dict[int, pd.DataFrame]:
    """By group, the scored tasks of those whose completed runs all measured it."""
    return {group: rows for group, rows in scored_tasks(runs).items() if is_measured(rows, measure)}


def any_drawn(tasks_of: Mapping[int, pd.DataFrame], layout: Layout) -> bool:
    """Whether figures show any of these groups."""
    return bool(layout.drawn.index.isin(tasks_of).any())


def curves_figure(
    tasks_of: Mapping[int, pd.DataFrame],
    measure: str,
    runs: Runs,
    layout: Layout,
    *,
    title: str,
    y: str,
    x: str,
    points: int = POINTS,
) -> Figure:
    """The `curve` of each group that has one and is drawn, of which there must be one (`any_drawn`).

    `title`, `y` and `x` are what is written; longer curves than `points` are drawn as means of blocks.
    """
    panels = [
        (name, lines)
        for name, members in layout.panels()
        if not (lines := members["label"][members.index.isin(tasks_of)]).empty
    ]
    figure, axes = panel_grid(len(panels))
    for axis, (name, lines) in zip(axes, panels, strict=True):
        block = math.ceil(max(tasks_of[group]["task"].nunique() for group in lines.index) / points)
        for group, label in lines.items():
            drawn = curve(tasks_of[group], measure, block)
            draw_line(axis, drawn["task"], drawn, label, layout.styles[label])
        axis.set_xlabel(x if block == 1 else f"{x} (each point: mean of {block} tasks)")
        axis.set_ylabel(y)
        axis.set_title(name, fontsize="medium")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.02)
        plain_axis(axis)
    headings(figure, axes, title, about(runs, layout))
    legend(figure, axes, layout.labels)
    return figure


def totals_figure(runs: Runs, layout: Layout) -> Figure:
    """The score: a point per group, the best on top, with its interval and its seeds as ticks."""
    panels = layout.panels()
    names = {name: wrapped(name) for name in layout.styles}
    # In inches, from the top: where each row ends.
    ends = [
        np.cumsum([0.1 + 0.16 * _num_lines(names[name]) for name in members["label"]])
        for _, members in panels
    ]
    figure, axes = panel_grid(len(panels), height=1.0 + max(of[-1] for of in ends))
    for axis, (title, members), end in zip(axes, panels, ends, strict=True):
        places = (end + np.concatenate([[0.0], end[:-1]])) / 2
        for place, (group, row) in zip(places, members.iterrows(), strict=True):
            number = layout.labels.index(row["label"])
            color = layout.styles[row["label"]]["color"]
            seeds = by_seed(runs, int(str(group)))
            axis.plot(
                seeds, np.full(len(seeds), place), "|", color=color, markersize=0.8 * _font(), alpha=0.6
            )
            axis.plot([row["low"], row["high"]], [place, place], color=color, linewidth=0.22 * _font())
            axis.plot(row["score"], place, mark(number), color=color, markersize=0.6 * _font())
            axis.annotate(
                f"{row['score']:.3f}",
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
                annotation_clip=False,
            )
        axis.set_yticks(places, [names[name] for name in members["label"]])
        axis.set_ylim(end[-1], 0)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(runs.scores[int(members.index[0])].words)
        plain_axis(axis, grid="x")
    if _size.get() is None:
        widest = max(map(_num_letters, names.values()))
        figure.set_figwidth(figure.get_figwidth() + 0.07 * widest * min(2, len(panels)))
    headings(figure, axes, layout.score.heading, f"{about(runs, layout)}, ticks: seeds")
    return figure


def _num_letters(name: str) -> int:
    """Of the longest of a name's lines."""
    return max(map(len, name.splitlines()))


def _num_lines(name: str) -> int:
    return name.count("\n") + 1


def _font() -> float:
    """The size of texts in points: lines and marks go with it."""
    return float(matplotlib.rcParams["font.size"])


def panel_grid(
    panels: int, height: float = 3.8, width: float = 5, columns: int = 2
) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, in rows; sizes in inches, of a panel."""
    size = _size.get()
    columns = min(columns, panels) if size is None or size.width > 5 else 1
    rows = math.ceil(panels / columns)
    if size is None:
        inches = (2 + width * columns, 0.4 + height * rows)
    else:
        inches = (size.width, rows * max(0.55 * size.width / columns, size.font / 10 * height * 0.6) + 0.4)
    figure = ShownFigure(figsize=inches, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def plain_axis(axis: Axes, grid: str = "y") -> None:
    """No box, a light grid behind the data."""
    axis.grid(axis="x" if grid == "x" else "y", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: Sequence[Axes], order: Sequence[str] = ()) -> None:
    """Inside a lone panel of few lines, else at the figure's right; names in this order, if it is given."""
    lines = {
        str(line.get_label()): line
        for axis in axes
        for line in axis.get_lines()
        if not str(line.get_label()).startswith("_")
    }
    names = sorted(lines, key=lambda name: order.index(name.strip()) if name.strip() in order else -1)
    shown = [wrapped(name) for name in names]
    widest = max(map(_num_letters, shown))
    handles = [lines[name] for name in names]
    size = _size.get()
    if size is not None:
        width = size.font * (0.009 * widest + 0.05)
        columns = max(1, int(size.width / width))
        rows = -(-len(shown) // columns) * max(map(_num_lines, shown))
        figure.set_figheight(figure.get_figheight() + 0.022 * size.font * rows)
        figure.legend(handles, shown, loc="outside lower center", frameon=False, ncols=columns)
    elif len(axes) == 1 and len(lines) <= 3:
        axes[0].legend(handles, shown, frameon=False)
    else:
        # As many columns as fit beside the axes.
        columns = -(-sum(map(_num_lines, shown)) // max(10, int(3.5 * figure.get_figheight())))
        figure.set_figwidth(figure.get_figwidth() + columns * (0.6 + 0.075 * widest))
        figure.legend(handles, shown, loc="outside right upper", frameon=False, ncols=columns)


def draw_line(
    axis: Axes,
    x: "pd.Series[Any]",
    points: pd.DataFrame,
    label: str,
    style: Mapping[str, Any],
    marker: str = "",
) -> None:
    """A line through the means with a band from `low` to `high`."""
    marker = "o" if len(points) == 1 else marker  # a lone point makes no line
    shown = f" {label}" if label.startswith("_") else label  # Matplotlib hides names that start with _
    axis.plot(x, points["mean"], label=shown, linewidth=0.18 * _font(), marker=marker or None, **style)
    axis.fill_between(x, points["low"], points["high"], color=style["color"], alpha=0.2, linewidth=0)


def headings(figure: Figure, axes: Sequence[Axes], title: str, small: str, own: bool = False) -> None:
    """A title, and a line in small print; neither on a figure of a given size.

    They are the figure's, or those of a lone axis, unless axes have titles of their `own`.
    """
    if _size.get() is not None:
        return
    if len(axes) == 1 and not own:
        axes[0].set_title(title, **LARGE, pad=22)
        above = 1 + 0.1 / figure.get_figheight()
        axes[0].text(0.5, above, small, transform=axes[0].transAxes, ha="center", va="bottom", **SMALL)
    else:
        figure.suptitle(title, **LARGE)
        figure.supxlabel(small, **SMALL)
