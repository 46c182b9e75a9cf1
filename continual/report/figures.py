"""Figures, by Matplotlib's object-oriented interface: no window, no global state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from continual.report.grouping import ABSENT
from continual.report.runs import Runs
from continual.report.statistics import accuracy_curve, scored_tasks, summarise
from continual.report.tables import format_value

# Okabe & Ito's colour-blind-safe palette without its yellow, too light for a line.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1)))
POINTS = 100
"""A stream of more tasks is drawn as at most this many means of consecutive tasks."""


def online_accuracy_figure(runs: Runs) -> Figure:
    """Online accuracy per task: a line per group, shaded 95 % intervals, a panel per environment.

    Equal labels look alike in all panels. Of more labels than there are styles (21) those of
    highest total average online accuracy are drawn, and the figure says so. Needs at least one
    completed run.
    """
    panel_keys = [key for key in runs.shown if key in ("env", "env/dataset")]
    line_keys = [key for key in runs.shown if key not in panel_keys]
    done = summarise(runs).query("n > 0")
    done["panel"] = [_label(row, panel_keys) for _, row in done.iterrows()]
    done["label"] = [_label(row, line_keys) or "all runs" for _, row in done.iterrows()]
    totals = done.groupby("label")["total_average_online_accuracy"].max()
    best = totals.nlargest(len(PALETTE) * len(DASHES)).index
    drawn = done[done["label"].isin(best)]
    styles = {
        label: {"color": PALETTE[place % len(PALETTE)], "linestyle": DASHES[place // len(PALETTE)]}
        for place, label in enumerate(drawn["label"].unique())
    }
    curves = scored_tasks(runs)
    panels = [(title, members["label"]) for title, members in drawn.groupby("panel", sort=False)]

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2 + 5 * columns, 0.4 + 3.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, lines) in zip(axes, panels, strict=False):
        _draw_curves(axis, curves, lines, styles)
        axis.set_title(title, fontsize=10)
    for axis in axes[len(panels) :]:
        axis.remove()

    title = "Online accuracy per task"
    large = {"fontsize": 13, "fontweight": "bold"}
    small = {"fontsize": 9, "color": "0.35"}
    about = _about(runs, drawn["n"], len(done) - len(drawn))
    if len(panels) == 1:
        axes[0].set_title(title, **large, pad=22)
        axes[0].text(0.5, 1.025, about, transform=axes[0].transAxes, ha="center", **small)
    else:
        figure.suptitle(title, **large)
        figure.supxlabel(about, **small)
    _legend(figure, axes[: len(panels)])
    return figure


def _draw_curves(
    axis: Axes,
    curves: Mapping[int, pd.DataFrame],
    lines: pd.Series,
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    block = math.ceil(max(curves[group]["task"].nunique() for group in lines.index) / POINTS)
    for group, label in lines.items():
        curve = accuracy_curve(curves[group], block)
        marker = "o" if len(curve) == 1 else None  # a lone point makes no line
        axis.plot(curve["task"], curve["mean"], label=label, linewidth=1.8, marker=marker, **styles[label])
        axis.fill_between(
            curve["task"],
            curve["low"],
            curve["high"],
            color=styles[label]["color"],
            alpha=0.2,
            linewidth=0,
        )
    axis.set_xlabel("task" if block == 1 else f"task (each point: mean of {block} tasks)")
    axis.set_ylabel("online accuracy")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(x=0.02)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Inside a lone panel of few lines, else at the figure's right."""
    lines = {str(line.get_label()): line for axis in axes for line in axis.get_lines()}
    if len(axes) == 1 and len(lines) <= 6:
        axes[0].legend(frameon=False)
    else:
        figure.set_figwidth(figure.get_figwidth() + 0.6 + 0.07 * max(map(len, lines)))
        figure.legend(lines.values(), lines.keys(), loc="outside right upper", frameon=False)


def _about(runs: Runs, seeds: pd.Series, left_out: int) -> str:
    """What the lines have in common, how many runs they are means of, and what is missing."""
    fewest, most = seeds.min(), seeds.max()
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    about = [*runs.common.values(), f"{count} seed{'' if most == 1 else 's'}"]
    if most > 1:
        about.append("95 % intervals")
    if left_out:
        about.append(f"{left_out} lower groups not drawn")
    return ", ".join(about)


def _label(values: pd.Series, keys: Sequence[str]) -> str:
    """Option names as they are, other keys as `lr=0.001`; nothing for a key that is absent."""
    short = [key.rpartition(".")[2] for key in keys]
    words = []
    for key, name in zip(keys, short, strict=True):
        if values[key] == ABSENT:
            continue
        name = name if short.count(name) == 1 else key
        is_option = "." not in key
        words.append(format_value(values[key]) if is_option else f"{name}={format_value(values[key])}")
    return ", ".join(words)
