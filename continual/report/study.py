"""Runs as CSV files, from which a report can be made again where the run folders are no longer there.

tasks.csv, which is the large one, may be gzipped.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from continual.errors import DataError
from continual.report.configs import RunConfig, keys_at_default, unflattened
from continual.report.folders import STATUSES, RunFolder
from continual.report.runs import Runs
from continual.report.score import Score
from continual.report.tables import write_csv

RUNS, TASKS, ACCURACIES = "runs.csv", "tasks.csv", "accuracies.csv"
_FRONT = ["run", "seed", "status", "score", "score_name", "higher_is_better"]
_WHICH = ("run", "task", "task_type", "step")
_DAMAGED = (
    *(OSError, EOFError, zlib.error),  # a gzipped file that was cut
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
)
_TRANSFERS = ["backward_transfer", "one_step_backward_transfer"]


def is_study(folder: Path) -> bool:
    """Whether a folder holds runs.csv and tasks.csv (or tasks.csv.gz)."""
    return (folder / RUNS).is_file() and tasks_file(folder).is_file()


def tasks_file(folder: Path) -> Path:
    """Where the rows of a study's tasks are: tasks.csv or, if that was gzipped, tasks.csv.gz."""
    packed = folder / f"{TASKS}.gz"
    return packed if packed.is_file() and not (folder / TASKS).exists() else folder / TASKS


def write_study(
    runs: Runs,
    accuracies: Mapping[int, NDArray[np.float64]],
    folder: Path,
    measures: Sequence[str] | None = None,
) -> list[Path]:
    """Write runs.csv (a row per run, its config in it) and tasks.csv (a row per run and task).

    Of the measures tasks.csv has those named here alone, and what the runs are compared by; None: all.
    `accuracies` are by run the test accuracies [after task, on task], NaN above the diagonal, if there are
    any; they go to accuracies.csv, a row for each.
    """
    groups = runs.runs["group"]
    configs = [runs.configs[group] for group in groups]
    table = runs.runs.reset_index().assign(
        score_name=[runs.scores[group].name for group in groups],
        higher_is_better=[runs.scores[group].higher_is_better for group in groups],
        options=[json.dumps(config.options) for config in configs],
        values=[json.dumps(config.values, default=str) for config in configs],
        overrides=[json.dumps(overrides) for overrides in runs.commands],
    )
    table = table[[*_FRONT, *_TRANSFERS, *runs.groups.columns, "options", "values", "overrides"]]
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / RUNS, digits=9)
    rows = runs.rows.drop(columns=["group", "status"])
    if measures is not None:
        kept = {*_WHICH, *measures, *(score.name for score in runs.scores)}
        rows = rows[[name for name in rows if name in kept]]
    rows.to_csv(folder / TASKS, index=False, float_format="%.9g", lineterminator="\n")
    paths = [folder / RUNS, folder / TASKS]
    if accuracies:
        parts = [
            pd.DataFrame({"run": run, "after": after, "on": on, "accuracy": accuracy_KM[after, on]})
            for run, accuracy_KM in accuracies.items()
            for after, on in (np.tril_indices(len(accuracy_KM)),)
        ]
        paths.append(folder / ACCURACIES)
        pd.concat(parts).to_csv(paths[-1], index=False, float_format="%.9g", lineterminator="\n")
    return paths


def read_study(folder: Path) -> list[RunFolder]:
    """The runs of these files; DataError if they are damaged."""
    try:
        table = pd.read_csv(folder / RUNS)
        tasks = pd.read_csv(tasks_file(folder), dtype={"task_type": str}).fillna({"task_type": ""})
        of_run = dict(iter(tasks.groupby("run")))
        return [_run(folder, row, of_run.get(row["run"])) for row in table.to_dict("records")]
    except _DAMAGED as error:
        words = " ".join(str(error).split())
        raise DataError(f"{folder / RUNS} and {TASKS} cannot be read as runs ({words}).") from error


def read_accuracies(folder: Path) -> dict[str, NDArray[np.float64]]:
    """What accuracies.csv holds, by the name of the run's folder; DataError if it is damaged."""
    path = folder / ACCURACIES
    if not path.exists():
        return {}
    try:
        found = {}
        for run, rows in pd.read_csv(path).groupby("run"):
            accuracy_KM = np.full((rows["after"].max() + 1,) * 2, np.nan)
            accuracy_KM[rows["after"], rows["on"]] = rows["accuracy"]
            found[_name(run)] = accuracy_KM
        return found
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} cannot be read as accuracies ({' '.join(str(error).split())}).") from error


def _name(run: Any) -> str:
    """What the folder of a run would be called."""
    return f"run {run}"


def _run(folder: Path, row: dict[str, Any], tasks: pd.DataFrame | None) -> RunFolder:
    if row["status"] not in STATUSES:
        raise ValueError(f"a status is {row['status']!r}")
    values = json.loads(row["values"])
    config = RunConfig(
        values=values,
        seed=None if pd.isna(row["seed"]) else int(row["seed"]),
        options=json.loads(row["options"]),
        overrides=tuple(json.loads(row["overrides"])),
        at_default=keys_at_default(unflattened(values)),
    )
    return RunFolder(
        folder / _name(row["run"]),
        config,
        row["status"],
        Score(str(row["score_name"]), bool(row["higher_is_better"])),
        float(row["score"]),
        (float(row[_TRANSFERS[0]]), float(row[_TRANSFERS[1]])),
        0 if tasks is None else len(tasks),
        pd.DataFrame() if tasks is None else tasks.drop(columns="run").reset_index(drop=True),
    )
