"""Read run folders into tables: a row per run, and a row per run and task."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from continual.errors import DataError
from continual.identity import canonical
from continual.report.configs import RunConfig, read_config
from continual.report.grouping import group_runs, grouped_by

STATUSES = ("completed", "diverged", "failed", "unfinished")
"""What can have become of a run; `unfinished` is one without a summary.json."""


@dataclass(frozen=True)
class Runs:
    """What the run folders hold.

    Attributes:
        runs: a row per run (index `run`): folder, group, seed, status,
            total_average_online_accuracy, backward_transfer and one_step_backward_transfer
            (NaN unless completed; the last two also unless measured).
        tasks: a row per finished task of a run: run, group, status and the columns of tasks.csv.
        groups: a row per group (index `group`), a column per key in which configs differ, "-"
            where a config does not have it. Runs of a group differ in nothing but their seed.
        shown: the columns of `groups` that suffice to tell the groups apart.
        common: the options that all runs share, such as `network` to `mlp`.
        configs: for each group the config of one of its runs.
        notes: what a reader of the tables has to know, as sentences.
    """

    runs: pd.DataFrame
    tasks: pd.DataFrame
    groups: pd.DataFrame
    shown: list[str]
    common: dict[str, str]
    configs: list[RunConfig]
    notes: list[str]


_NO_TRANSFER = (math.nan, math.nan)


@dataclass(frozen=True)
class _Run:
    folder: Path
    config: RunConfig
    status: str
    total: float
    transfers: tuple[float, float]  # backward transfer, one-step backward transfer
    num_tasks: int
    written: float  # when its last result was, in seconds since the epoch
    error: str = ""  # the last line of why it failed


def load_runs(folders: Iterable[Path | str], by: Sequence[str] = ()) -> Runs:
    """Read all runs below `folders`, at any depth.

    Runs are grouped by all keys that differ but the seed. `by` names the keys that are to tell the
    groups apart in labels and tables; it never merges groups.

    A run is a folder with `.hydra/config.yaml` and `tasks.csv` (or `summary.json`, if it failed
    before its first task was done). Of runs equal in config and seed one counts: the newest that
    is completed or diverged, else the newest.

    Raises DataError if a folder is missing, there is no run, or a run's files are damaged, and
    ConfigError if the keys in `by` would put runs together that differ in others.
    """
    tops = [Path(folder) for folder in folders]
    paths, waiting = _find(tops)
    if not paths:
        raise DataError(
            f"no run below {', '.join(map(str, tops))}: "
            "a run is a folder with tasks.csv and .hydra/config.yaml."
        )
    runs, notes = _without_repetitions([_read_run(path) for path in paths])
    if waiting:
        notes.append(
            f"Left out: {counted(len(waiting), 'folder')} with a config but no finished task, "
            f"such as {waiting[0]}."
        )
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        reason = failed[0].error or "no reason in its summary.json"
        notes.append(f"{counted(len(failed), 'failed run')}, such as {failed[0].folder}: {reason}")
    grouping = group_runs([run.config for run in runs])
    config_of = dict(zip(grouping.members, [run.config for run in runs], strict=True))
    configs = [config_of[group] for group in range(len(grouping.groups))]
    if by:
        grouping = grouped_by(grouping, configs, by)

    table = pd.DataFrame(
        {
            "folder": [str(run.folder) for run in runs],
            "group": grouping.members,
            "seed": [run.config.seed for run in runs],
            "status": [run.status for run in runs],
            "total_average_online_accuracy": [run.total for run in runs],
            "backward_transfer": [run.transfers[0] for run in runs],
            "one_step_backward_transfer": [run.transfers[1] for run in runs],
        }
    ).rename_axis("run")
    groups = pd.DataFrame(
        {key: [row[key] for row in grouping.groups] for key in grouping.keys},
        index=pd.RangeIndex(len(grouping.groups), name="group"),
        dtype=object,
    )
    return Runs(table, _read_tasks(runs, table), groups, grouping.shown, grouping.common, configs, notes)


def _find(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The run folders below `folders`, each once, and the folders with nothing but a config."""
    found: dict[Path, Path] = {}
    waiting: dict[Path, Path] = {}
    for top in folders:
        if not top.is_dir():
            raise DataError(f"{top}: no such folder.")
        for name, subfolders, files in os.walk(top):
            subfolders.sort()
            if ".hydra" not in subfolders:
                continue
            subfolders.remove(".hydra")
            folder = Path(name)
            if not (folder / ".hydra" / "config.yaml").is_file():
                continue
            if "wandb" in subfolders:
                subfolders.remove("wandb")
            is_run = "tasks.csv" in files or "summary.json" in files
            (found if is_run else waiting).setdefault(folder.resolve(), folder)
    return list(found.values()), list(waiting.values())


def _read_run(folder: Path) -> _Run:
    config = read_config(folder)
    path = folder / "summary.json"
    if not path.exists():
        return _Run(folder, config, "unfinished", math.nan, _NO_TRANSFER, 0, _written(folder / "tasks.csv"))
    try:
        summary: Any = json.loads(path.read_text(encoding="utf-8"))
        status = summary["status"]
        total = summary.get("total_average_online_accuracy")
        if status not in STATUSES or (status == "completed" and not math.isfinite(total)):
            raise ValueError(f"status {status!r}, total_average_online_accuracy {total!r}")
        transfers = _transfers(summary) if status == "completed" else _NO_TRANSFER
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it or run that run again.") from error
    return _Run(
        folder,
        config,
        status,
        float(total) if status == "completed" else math.nan,
        transfers,
        summary.get("num_tasks") or 0,
        _written(path),
        _last_line(summary.get("error")),
    )


def _last_line(error: object) -> str:
    lines = str(error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _transfers(summary: Any) -> tuple[float, float]:
    """Both backward transfers of a summary.json; NaN where they were not measured."""
    first, second = (summary.get(name) for name in ("backward_transfer", "one_step_backward_transfer"))
    return math.nan if first is None else float(first), math.nan if second is None else float(second)


def _without_repetitions(runs: Sequence[_Run]) -> tuple[list[_Run], list[str]]:
    """Of runs equal in config and seed the one that counts; and a note on the others."""
    kept: dict[tuple[str, str], _Run] = {}
    dropped: list[_Run] = []
    for run in runs:
        key = (run.config.identity, canonical(run.config.seed))
        rival = kept.setdefault(key, run)
        if rival is not run:
            kept[key], older = (run, rival) if _worth(run) > _worth(rival) else (rival, run)
            dropped.append(older)
    if not dropped:
        return list(kept.values()), []
    return list(kept.values()), [
        f"Left out: {counted(len(dropped), 'repetition')} of a run with the same config and seed, "
        f"such as {dropped[0].folder}; the newest finished one counts."
    ]


def _worth(run: _Run) -> tuple[bool, float]:
    return run.status in ("completed", "diverged"), run.written


def _read_tasks(runs: Sequence[_Run], table: pd.DataFrame) -> pd.DataFrame:
    """All rows of all tasks.csv, with the run, its group and its status in front."""
    parts = []
    for index, run in enumerate(runs):
        part = _read_task_file(run)
        if not part.empty:
            for place, column in enumerate(("group", "status")):
                part.insert(place, column, table.at[index, column])
            part.insert(0, "run", index)
            parts.append(part)
    if not parts:
        columns = ["run", "group", "status", "task", "task_type", "online_accuracy"]
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)


def _read_task_file(run: _Run) -> pd.DataFrame:
    path = run.folder / "tasks.csv"
    try:
        part = pd.read_csv(path, dtype={"task_type": str}).fillna({"task_type": ""})
        missing = {"task", "task_type", "online_accuracy"} - set(part.columns)
        if missing:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        if run.status == "completed" and len(part) < max(1, run.num_tasks):
            raise ValueError(f"{len(part)} of {run.num_tasks} tasks")
    except (OSError, ValueError) as error:
        if run.status == "completed":
            raise DataError(f"{path} is damaged ({error}): run that run again.") from error
        return pd.DataFrame()
    return part


def _written(path: Path) -> float:
    return path.stat().st_mtime


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
