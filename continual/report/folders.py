"""Run folders: where they are, and what is in one. A damaged one is described, and stops no other."""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from continual.errors import DataError
from continual.report.configs import RunConfig, read_config
from continual.report.score import Score, finite, score_of

STATUSES = ("completed", "diverged", "failed", "unfinished")
"""What can have become of a run; `unfinished` is one without a summary.json that can be read."""
TRANSFERS = ("backward_transfer", "one_step_backward_transfer")

# What reading a file of unknown content can raise.
_DAMAGE = (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds.

    Attributes:
        folder, config: where it is, and what was asked for.
        status: one of STATUSES.
        score: what the run is compared by.
        value: its score; NaN unless completed. transfers: both backward transfers, NaN unless measured.
        num_tasks: how many tasks it had, 0 if not known.
        tasks: the rows of tasks.csv; empty if none can be read.
        data: the fingerprint of the images and labels that it was trained on, "" if it is not recorded.
        written: when its last result was, in seconds since the epoch.
        error: the last line of why it failed.
        damage: what of it cannot be read, as sentences.
    """

    folder: Path
    config: RunConfig
    status: str = "unfinished"
    score: Score = field(default_factory=Score)
    value: float = np.nan
    transfers: tuple[float, float] = (np.nan, np.nan)
    num_tasks: int = 0
    tasks: pd.DataFrame = field(default_factory=pd.DataFrame)
    data: str = ""
    written: float = 0.0
    error: str = ""
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The run folders below some folders, each once; those with a config only; what cannot be looked into."""

    runs: list[Path]
    waiting: list[Path]
    damaged: list[str]


def find(folders: Sequence[Path]) -> Found:
    """The run folders below `folders`, at any depth. DataError if one of these is missing."""
    runs: dict[Path, Path] = {}
    waiting: dict[Path, Path] = {}
    damaged: list[str] = []

    def unreadable(error: OSError) -> None:
        damaged.append(f"{error.filename} cannot be read: {error.strerror}.")

    for top in folders:
        if not top.is_dir():
            raise DataError(f"{top}: no such folder.")
        for name, subfolders, files in os.walk(top, onerror=unreadable):
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
            (runs if is_run else waiting).setdefault(folder.resolve(), folder)
    return Found(list(runs.values()), list(waiting.values()), damaged)


def read_run(folder: Path) -> RunFolder:
    """Read one run; DataError if not even its config can be read."""
    config = read_config(folder)
    path = folder / "summary.json"
    if not path.exists():
        return RunFolder(folder, config, tasks=_tasks(folder, 0), written=_written(folder / "tasks.csv"))
    try:
        summary = _summary(path)
    except DataError as error:
        damage = (f"{error}: that run counts as unfinished; run it again.",)
        return RunFolder(folder, config, tasks=_tasks(folder, 0), written=_written(path), damage=damage)
    run = RunFolder(folder, config, written=_written(path), **summary)
    if run.status != "completed":
        return replace(run, tasks=_tasks(folder, 0))
    try:
        return replace(run, tasks=_tasks(folder, max(1, run.num_tasks)))
    except DataError as error:
        return spoilt(replace(run, tasks=_tasks(folder, 0)), str(error))


def spoilt(run: RunFolder, damage: str) -> RunFolder:
    """A run whose results cannot be used: it counts as unfinished, and the report says why."""
    damage = f"{damage}: that run counts as unfinished; run it again."
    return replace(run, status="unfinished", value=np.nan, transfers=(np.nan, np.nan), damage=(damage,))


def _summary(path: Path) -> dict[str, Any]:
    """What a summary.json says, as arguments of `RunFolder`; DataError if it does not say it."""
    try:
        summary: Any = json.loads(path.read_text(encoding="utf-8"))
        status = summary["status"]
        if status not in STATUSES:
            raise ValueError(f"its status is {status!r}")
        score, value = score_of(summary)
        completed = status == "completed"
        is_unscored = value is None and "score_name" in summary and summary["score_name"] is None
        measured = [summary.get(name) if completed else None for name in TRANSFERS]
        return {
            "status": status,
            "score": score,
            "value": finite(value) if completed and not is_unscored else np.nan,
            "transfers": tuple(np.nan if one is None else finite(one) for one in measured),
            "num_tasks": int(summary.get("num_tasks") or 0),
            "data": str(summary.get("data_fingerprint") or ""),
            "error": _last_line(summary.get("error")),
        }
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged ({_line(error)})") from error


def _tasks(folder: Path, wanted: int) -> pd.DataFrame:
    """The whole rows of tasks.csv; DataError if `wanted` tasks should be there and are not, or hold text."""
    try:
        text = (folder / "tasks.csv").read_bytes()
        # A row that is being written, or was cut, has no end of line: its last number may lack digits.
        text = text[: text.rfind(b"\n") + 1]
        table = pd.read_csv(io.BytesIO(text), dtype={"task_type": str})
        if "task" not in table:
            raise ValueError("no column task")
        table["task_type"] = table["task_type"].fillna("") if "task_type" in table else ""
        for name in table.columns:
            if name != "task_type" and not pd.api.types.is_numeric_dtype(table[name]):
                numbers = pd.to_numeric(table[name], errors="coerce")
                if wanted and (numbers.isna() & table[name].notna()).any():
                    raise ValueError(f"column {name} holds text")
                table[name] = numbers
        # What is not a row of the next task ends the table.
        whole = table["task"].to_numpy() == np.arange(len(table))
        if "step" in table:
            whole &= table["step"].notna().to_numpy()
        if not whole.all():
            if wanted:
                raise ValueError("its tasks are not 0, 1, 2 ...")
            table = table[: int(whole.argmin())]
        if len(table) < wanted:
            raise ValueError(f"{len(table)} of {wanted} tasks")
        if table["task"].dtype != np.int64:
            table = table.astype({"task": np.int64})
    except _DAMAGE as error:
        if wanted:
            raise DataError(f"{folder / 'tasks.csv'} is damaged ({_line(error)})") from error
        return pd.DataFrame()
    return table


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if isinstance(error, LookupError) else words[:200]


def _last_line(error: object) -> str:
    lines = str(error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
