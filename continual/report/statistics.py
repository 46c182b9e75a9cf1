"""Averages over seeds, with bootstrap intervals."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from continual.report.folders import STATUSES
from continual.report.runs import Runs

CONFIDENCE = 0.95
RESAMPLES = 10_000
CURVE_RESAMPLES = 2_000  # a curve is a picture: its edges need no third digit


Statistic = Callable[..., NDArray[np.float64]]


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
    # A resample is how often each seed is in it: the means of all resamples are one product of matrices.
    shares = _shares(len(values), resamples)
    outside = (1 - CONFIDENCE) / 2
    columns = values.reshape(len(values), -1)
    parts = [
        np.quantile(
            np.einsum("rs,sc->rc", shares, columns[:, start : start + 1000]), (outside, 1 - outside), axis=0
        )
        for start in range(0, columns.shape[1], 1000)
    ]
    low, high = np.concatenate(parts, axis=1).reshape(2, *values.shape[1:])
    return Interval(mean, np.where(equal, mean, low), np.where(equal, mean, high))


@functools.cache
def _shares(seeds: int, resamples: int) -> NDArray[np.float64]:
    """What part of each resample each seed is, [resamples, seeds]."""
    drawn = np.random.default_rng(0).integers(seeds, size=(resamples, seeds))
    return np.asarray(np.apply_along_axis(np.bincount, 1, drawn, minlength=seeds) / seeds)


def overall_mean(*strata: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The mean over strata (environments) of the mean over runs, along `axis` of each stratum."""
    return np.asarray(np.mean([stratum.mean(axis=axis) for stratum in strata], axis=0))


def interquartile_mean(*strata: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The mean of the middle half of the runs of all strata together (Agarwal et al. 2021, section 4.3).

    A quarter of the values, rounded down, is left out at each end.
    """
    from scipy import stats  # a second, and most tables need none of it

    return np.asarray(stats.trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis))


def probability_of_improvement(*strata: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """How probably a run of X beats one of Y, a tie counting half (Agarwal et al. 2021, section 4.3).

    P(X > Y) is the mean over strata (environments) of the share of all pairs of their runs, seeds
    apart, in which X is higher: the Mann-Whitney U statistic over the number of pairs. The first
    half of `strata` are X's, the second half, in the same order, Y's.
    """
    half = len(strata) // 2
    shares = []
    for x, y in zip(strata[:half], strata[half:], strict=True):
        sign = np.sign(
            np.expand_dims(np.moveaxis(x, axis, -1), -1) - np.expand_dims(np.moveaxis(y, axis, -1), -2)
        )
        shares.append((sign.mean(axis=(-2, -1)) + 1) / 2)
    return np.asarray(np.mean(shares, axis=0))


def stratified_interval(
    strata: Sequence[ArrayLike], statistic: Statistic, resamples: int = RESAMPLES
) -> Interval:
    """A statistic of several groups of runs and its 95 % percentile bootstrap interval.

    Runs are drawn with replacement within each stratum on its own (the stratified bootstrap of
    Agarwal et al. 2021, section 4.2). A stratum without a run or with a NaN leaves nothing, one with
    a single run no interval. The same values always give the same interval.
    """
    samples = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    nothing = np.asarray(np.nan)
    if not samples or min(map(len, samples)) == 0 or any(np.isnan(sample).any() for sample in samples):
        return Interval(nothing, nothing, nothing)
    value = np.asarray(statistic(*samples))
    if min(map(len, samples)) == 1:
        return Interval(value, nothing, nothing)
    if all((sample == sample[0]).all() for sample in samples):
        return Interval(value, value, value)
    from scipy import stats

    pairs = max(len(sample) for sample in samples) ** 2
    low, high = stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // pairs),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, low, high)


def by_seed(runs: Runs, group: int, column: str = "score") -> "pd.Series[float]":
    """What the completed runs of a group reached, by seed."""
    members = runs.runs[(runs.runs["group"] == group) & (runs.runs["status"] == "completed")]
    return members.set_index("seed")[column].astype(float)


def compare(runs: Runs, pairs: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """A row per pair of groups (x, y): how the score of x differs from y's.

    Columns: `x`, `y`; `pairs` (seeds both have), `difference` (mean over them of x - y: with the
    same seed two runs see the same tasks and batches) with its interval `low`, `high`;
    `probability` that a run of x is better, from all runs of both, with `probability_low` and
    `probability_high`. NaN where there is nothing to compare.
    """
    rows = []
    for x, y in pairs:
        of_x, of_y = by_seed(runs, x), by_seed(runs, y)
        differences = (of_x - of_y).dropna()  # by seed; a seed that only one has is NaN
        difference = mean_interval(differences)
        ranked = [of_x, of_y] if runs.scores[x].higher_is_better else [of_y, of_x]
        better = stratified_interval(ranked, probability_of_improvement, CURVE_RESAMPLES)
        rows.append(
            {
                "x": x,
                "y": y,
                "pairs": len(differences),
                "difference": float(difference.mean),
                "low": float(difference.low),
                "high": float(difference.high),
                "probability": float(better.mean),
                "probability_low": float(better.low),
                "probability_high": float(better.high),
            }
        )
    return pd.DataFrame(rows)


def summarise(runs: Runs) -> pd.DataFrame:
    """A row per group: its keys, how many runs, and what the completed ones reached.

    Columns after the keys: `n` (completed runs, the ones averaged), `diverged`, `failed`,
    `unfinished`; `score_name`; `score` with its interval `low`, `high`; `iqm`, the
    interquartile mean, with `iqm_low`, `iqm_high`; the means of `first_task`, `last_task` and
    `last_task_test`, of the measure that the score is the mean of, over the tasks an environment is
    scored on. Accuracies are fractions; NaN where there is nothing to average.
    """
    rows: list[dict[str, Any]] = []
    tasks_of = scored_tasks(runs)
    for group in runs.groups.index:
        members = runs.runs[runs.runs["group"] == group]
        counts = {status: int((members["status"] == status).sum()) for status in STATUSES}
        completed = members[members["status"] == "completed"]
        score = runs.scores[group]
        total = mean_interval(completed["score"])
        middle = stratified_interval([completed["score"]], interquartile_mean)
        row = {
            "n": counts.pop("completed"),
            **counts,
            "score_name": score.name,
            "score": float(total.mean),
            "low": float(total.low),
            "high": float(total.high),
            "iqm": float(middle.mean),
            "iqm_low": float(middle.low),
            "iqm_high": float(middle.high),
            "first_task": np.nan,
            "last_task": np.nan,
            "last_task_test": np.nan,
        }
        if group in tasks_of:
            means = tasks_of[group].groupby("task").mean(numeric_only=True)
            if score.name in means:
                row["first_task"] = means[score.name].iloc[0]
                row["last_task"] = means[score.name].iloc[-1]
            if score.tested in means:
                row["last_task_test"] = means[score.tested].iloc[-1]
        rows.append(row)
    return runs.groups.join(pd.DataFrame(rows, index=runs.groups.index))


def online_accuracy(runs: Runs) -> pd.DataFrame:
    """A row per group and scored task: `task`, the keys, `mean`, `low`, `high` and `n` seeds."""
    return measure_by_task(runs, "online_accuracy")


def measure_by_task(runs: Runs, measure: str) -> pd.DataFrame:
    """As `online_accuracy`, for any column of tasks.csv; groups that did not measure it are left out."""
    measured = {group: rows for group, rows in scored_tasks(runs).items() if is_measured(rows, measure)}
    return curves_table(runs, measured, measure)


def curves_table(runs: Runs, tasks_of: Mapping[int, pd.DataFrame], measure: str) -> pd.DataFrame:
    """The `curve` of each of these groups, with the group's keys."""
    columns = ["task", *runs.groups.columns, "mean", "low", "high", "n"]
    curves = [curve(tasks, measure).assign(group=group) for group, tasks in tasks_of.items()]
    if not curves:
        return pd.DataFrame(columns=columns)
    return pd.concat(curves, ignore_index=True).join(runs.groups, on="group")[columns]


def is_measured(tasks: pd.DataFrame, measure: str) -> bool:
    """Whether every row of these tasks has a value of this column."""
    return measure in tasks and not tasks.empty and bool(tasks[measure].notna().all())


def accuracy_curve(tasks: pd.DataFrame, block: int = 1) -> pd.DataFrame:
    """The `curve` of online accuracy."""
    return curve(tasks, "online_accuracy", block)


def curve(tasks: pd.DataFrame, measure: str, block: int = 1) -> pd.DataFrame:
    """A measure per task of one group of `scored_tasks`: task, mean, low, high, n.

    With `block` > 1 each run's values are first averaged over that many consecutive tasks
    (fewer in the last block), and `task` is the mean of their numbers.
    """
    values = tasks.pivot(index="run", columns="task", values=measure)
    block_of = np.arange(values.shape[1]) // block
    by_block = values.T.groupby(block_of).mean().T.to_numpy()
    task = values.columns.to_series().groupby(block_of).mean().to_numpy()
    mean, low, high = mean_interval(by_block, CURVE_RESAMPLES)
    return pd.DataFrame({"task": task, "mean": mean, "low": low, "high": high, "n": len(values)})


def scored_tasks(runs: Runs) -> dict[int, pd.DataFrame]:
    """The task rows that count, by group: of completed runs, all but the easy tasks."""
    tasks = runs.rows
    tasks = tasks[(tasks["status"] == "completed") & (tasks["task_type"] != "easy")]
    return {int(group): rows for group, rows in tasks.groupby("group")}
