"""Averages over seeds, with bootstrap intervals."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from continual.errors import DataError
from continual.report.runs import STATUSES, Runs

CONFIDENCE = 0.95
RESAMPLES = 10_000
CURVE_RESAMPLES = 2_000  # a curve is a picture: its edges need no third digit


class Interval(NamedTuple):
    """A mean over seeds and the ends of its interval; NaN where there is none."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def mean_interval(values: ArrayLike, resamples: int = RESAMPLES) -> Interval:
    """The mean over the first axis (seeds) and its 95 % percentile bootstrap interval.

    `values` is [seeds] or [seeds, columns]; the columns are resampled by the same seeds, so that
    each interval is the one its column would get alone. The percentile interval (Efron 1979; the
    choice of Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice") stays within
    the data however few seeds there are. One seed has no interval, none no mean; equal values have
    an interval of width zero. The same values always give the same interval.
    """
    values = np.asarray(values, dtype=np.float64)
    nothing = np.full(values.shape[1:], np.nan)
    if len(values) == 0:
        return Interval(nothing, nothing, nothing)
    # The mean of equal numbers can differ from them in the last digit.
    equal = (values == values[0]).all(axis=0)
    mean = np.where(equal, values[0], values.mean(axis=0))
    if len(values) == 1:
        return Interval(mean, nothing, nothing)
    low, high = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // values.size),  # at most 32 MB at a time
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean, np.where(equal, mean, low), np.where(equal, mean, high))


def summarise(runs: Runs) -> pd.DataFrame:
    """A row per group: its keys, how many runs, and what the completed ones reached.

    Columns after the keys: `n` (completed runs, the ones averaged), `diverged`, `failed`,
    `unfinished`; `total_average_online_accuracy` with its interval `low`, `high`; the means of
    `first_task_accuracy`, `last_task_accuracy` (online accuracy) and `last_task_test_accuracy`,
    over the tasks an environment is scored on. Fractions; NaN where there is nothing to average.
    """
    rows: list[dict[str, Any]] = []
    tasks_of = scored_tasks(runs)
    for group in runs.groups.index:
        members = runs.runs[runs.runs["group"] == group]
        counts = {status: int((members["status"] == status).sum()) for status in STATUSES}
        completed = members[members["status"] == "completed"]
        total = mean_interval(completed["total_average_online_accuracy"])
        row = {
            "n": counts.pop("completed"),
            **counts,
            "total_average_online_accuracy": float(total.mean),
            "low": float(total.low),
            "high": float(total.high),
            "first_task_accuracy": np.nan,
            "last_task_accuracy": np.nan,
            "last_task_test_accuracy": np.nan,
        }
        if group in tasks_of:
            means = tasks_of[group].groupby("task").mean(numeric_only=True)
            row["first_task_accuracy"] = means["online_accuracy"].iloc[0]
            row["last_task_accuracy"] = means["online_accuracy"].iloc[-1]
            if "test_accuracy" in means:
                row["last_task_test_accuracy"] = means["test_accuracy"].iloc[-1]
        rows.append(row)
    return runs.groups.join(pd.DataFrame(rows, index=runs.groups.index))


def online_accuracy(runs: Runs) -> pd.DataFrame:
    """A row per group and scored task: `task`, the keys, `mean`, `low`, `high` and `n` seeds."""
    columns = ["task", *runs.groups.columns, "mean", "low", "high", "n"]
    curves = [accuracy_curve(tasks).assign(group=group) for group, tasks in scored_tasks(runs).items()]
    if not curves:
        return pd.DataFrame(columns=columns)
    return pd.concat(curves, ignore_index=True).join(runs.groups, on="group")[columns]


def accuracy_curve(tasks: pd.DataFrame, block: int = 1) -> pd.DataFrame:
    """Online accuracy per task of one group of `scored_tasks`: task, mean, low, high, n.

    With `block` > 1 each run's accuracies are first averaged over that many consecutive tasks
    (fewer in the last block), and `task` is the mean of their numbers.
    """
    by_seed = tasks.pivot(index="run", columns="task", values="online_accuracy")
    block_of = np.arange(by_seed.shape[1]) // block
    by_block = by_seed.T.groupby(block_of).mean().T.to_numpy()
    task = by_seed.columns.to_series().groupby(block_of).mean().to_numpy()
    mean, low, high = mean_interval(by_block, CURVE_RESAMPLES)
    return pd.DataFrame({"task": task, "mean": mean, "low": low, "high": high, "n": len(by_seed)})


def scored_tasks(runs: Runs) -> dict[int, pd.DataFrame]:
    """The task rows that count, by group: of completed runs, all but the easy tasks.

    Raises DataError if completed runs of a group did not do the same tasks.
    """
    tasks = runs.tasks
    tasks = tasks[(tasks["status"] == "completed") & (tasks["task_type"] != "easy")]
    groups = {int(group): rows for group, rows in tasks.groupby("group")}
    for rows in groups.values():
        counts = rows.groupby("run")["task"].nunique()
        if (counts < rows["task"].nunique()).any():
            raise DataError(
                f"{runs.runs.at[counts.idxmin(), 'folder']}: tasks.csv lacks tasks that other runs "
                "of the same config have; run that run again."
            )
    return groups
