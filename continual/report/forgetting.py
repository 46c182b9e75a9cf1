"""Forgetting: backward transfer, and what is left of a task's test accuracy as other tasks follow."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from continual.errors import DataError
from continual.report.figures import curves_figure
from continual.report.folders import TRANSFERS
from continual.report.layout import Layout
from continual.report.runs import Runs, counted
from continual.report.statistics import by_seed, curves_table, mean_interval
from continual.report.study import is_study, read_accuracies

TOTAL = "score"
PAST = "past_task_accuracy"
"""The name of the figure, of its CSV and of the column that both are of."""

_FILE = "forgetting.csv"


def transfers(runs: Runs) -> pd.DataFrame:
    """A row per group whose completed runs measured it: the keys, `n`, both backward transfers, the total.

    `backward_transfer`, `one_step_backward_transfer` and the `score` are means over the
    `n` seeds that measured them, each with its interval in `<name>_low` and `<name>_high`. Fractions,
    negative where tasks were forgotten.
    """
    rows, groups = [], []
    for group in runs.groups.index:
        seeds = by_seed(runs, group, TRANSFERS[0]).dropna().index
        if seeds.empty:
            continue
        row: dict[str, Any] = {"n": len(seeds)}
        for name in (*TRANSFERS, TOTAL):
            interval = mean_interval(by_seed(runs, group, name).loc[seeds])
            row |= {name: float(interval.mean), f"{name}_low": float(interval.low)}
            row[f"{name}_high"] = float(interval.high)
        rows.append(row)
        groups.append(group)
    return runs.groups.join(pd.DataFrame(rows, index=pd.Index(groups, name="group")), how="inner")


def accuracy_matrices(runs: Runs) -> tuple[dict[int, NDArray[np.float64]], dict[int, str]]:
    """The forgetting.csv of each completed run that has one, by run, as [after task, on task].

    NaN above the diagonal. Of those that do not have an accuracy for each task so far, a sentence each. Runs
    that were read from a study's files have theirs in its accuracies.csv.
    """
    completed = runs.runs[runs.runs["status"] == "completed"]
    tasks = runs.rows.groupby("run").size()
    found, damaged = {}, {}
    studies: dict[Path, dict[str, NDArray[np.float64]]] = {}
    for run, name in completed["folder"].items():
        folder, number = Path(name), int(str(run))
        if is_study(folder.parent):
            if folder.parent not in studies:
                studies[folder.parent] = read_accuracies(folder.parent)
            if folder.name in studies[folder.parent]:
                found[number] = studies[folder.parent][folder.name]
        elif (folder / _FILE).exists():
            try:
                found[number] = _read(folder / _FILE, tasks[run])
            except DataError as error:
                damaged[number] = str(error)
    return found, damaged


def mean_matrices(runs: Runs, of_runs: Mapping[int, NDArray[np.float64]]) -> dict[int, NDArray[np.float64]]:
    """The means over seeds of `accuracy_matrices`, by group."""
    members: dict[int, list[NDArray[np.float64]]] = {}
    for run, accuracy_KM in of_runs.items():
        members.setdefault(int(runs.runs.at[run, "group"]), []).append(accuracy_KM)
    return {group: np.mean(matrices, axis=0) for group, matrices in members.items()}


def past_task_accuracies(runs: Runs, of_runs: Mapping[int, NDArray[np.float64]]) -> dict[int, pd.DataFrame]:
    """By group, of each completed run with a forgetting.csv: `run`, `task` and `past_task_accuracy`.

    `task` is how many tasks ago, d = 0 ... K - 1 of K tasks, and the accuracy the mean over the scored tasks
    m < K - d of the test accuracy on task m after task m + d. Groups without such a run are left out.
    """
    types = {run: rows.sort_values("task")["task_type"] for run, rows in runs.rows.groupby("run")}
    found: dict[int, list[pd.DataFrame]] = {}
    for run, accuracy_KM in of_runs.items():
        mean_D = _by_age(accuracy_KM, (types[run] != "easy").to_numpy())
        part = pd.DataFrame({"run": run, "task": range(len(mean_D)), PAST: mean_D})
        found.setdefault(int(runs.runs.at[run, "group"]), []).append(part.dropna())
    return {group: pd.concat(parts, ignore_index=True) for group, parts in sorted(found.items())}


def past_task_table(runs: Runs, of_groups: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """A row per group and age: `tasks_ago`, the keys, `mean` over seeds, `low`, `high` and `n` seeds."""
    return curves_table(runs, of_groups, PAST).rename(columns={"task": "tasks_ago"})


def has_past_tasks(of_groups: Mapping[int, pd.DataFrame]) -> bool:
    """Whether any group has a task that others followed."""
    return any(rows["task"].max() > 0 for rows in of_groups.values())


def past_task_figure(runs: Runs, of_groups: Mapping[int, pd.DataFrame], layout: Layout) -> Figure:
    """Test accuracy over how long ago a task was learned, a line per group; some has a past task."""
    longest = max(rows["task"].max() + 1 for rows in of_groups.values())
    return curves_figure(
        of_groups,
        PAST,
        runs,
        layout,
        title="Test accuracy on past tasks",
        y="test accuracy",
        x="tasks since it was learned",
        points=longest,  # most is forgotten in the first few
    )


def left_out(runs: Runs, measured: Collection[int]) -> list[str]:
    """Which runs have no part in this, as sentences; `measured` are those with a forgetting.csv."""
    sentences = []
    counts = Counter(runs.runs["status"])
    others = [counted(counts[status], f"{status} run") for status in counts if status != "completed"]
    if others:
        sentences.append(f"Left out here: {', '.join(others)}.")
    folders = runs.runs[runs.runs["status"] == "completed"]["folder"]
    without = folders[~folders.index.isin(measured)].tolist()
    if without:
        sentences.append(
            f"Left out here: {counted(len(without), 'completed run')} without {_FILE}, such as {without[0]}; "
            "metrics.forgetting=true writes it."
        )
    return sentences


def _by_age(accuracy_KM: NDArray[np.float64], scored_M: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over scored tasks m of accuracy_KM[m + d, m], for each d; NaN where there is no such task."""
    tasks = len(accuracy_KM)
    parts = [np.diagonal(accuracy_KM, -age)[scored_M[: tasks - age]] for age in range(tasks)]
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def _read(path: Path, tasks: int) -> NDArray[np.float64]:
    """A forgetting.csv as [after task k, on task m], NaN above the diagonal."""
    try:
        table = pd.read_csv(path, index_col="task")
        accuracy_KM: NDArray[np.float64] = table.to_numpy(dtype=np.float64)
        names = [str(task) for task in range(tasks)]
        if [*map(str, table.index)] != names or [*table.columns] != names:
            raise ValueError(f"not a row and a column for each of {tasks} tasks")
        if np.isnan(accuracy_KM[np.tril_indices(tasks)]).any():
            raise ValueError("an accuracy is missing")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({' '.join(str(error).split())}): that run has no part in what is said of "
            "forgetting; run it again."
        ) from error
    return accuracy_KM
