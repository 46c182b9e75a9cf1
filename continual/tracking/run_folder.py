"""The files of one run: its tables, summary.json and the checkpoint.

Summary and checkpoint are never half-written under their final names, whenever the process is killed: they
are written beside their place and renamed into it. Tables grow line by line; a checkpoint holds their rows
too, so that a resumed run's tables have each task once, wherever it had got to after the checkpoint.

What is read back is believed only if it is whole: a summary that is not counts as none, and a checkpoint
that is not gives way to the one before it. torch is imported only to write or read a checkpoint's tensors.
"""

import csv
import functools
import hashlib
import io
import json
import logging
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from continual.errors import UserError
from continual.tracking.storage import make_folder, replace_file, saying_what_was_lost, sync, write_beside

Row: TypeAlias = dict[str, float | int | str]

log = logging.getLogger(__name__)

_CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
_POSITION = "position"
# What can be read of a checkpoint without its tensors.
_NEWEST = ("task", "step_in_task", "native", "data_fingerprint")
_DIGEST_SIZE = 64
_STATUSES = ("completed", "diverged", "failed")


class Table:
    """A CSV file that grows by rows with the same columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def start(self, rows: list[Row]) -> None:
        """Begin with these rows: none, or those of the checkpoint from which a run resumes."""
        self.rows = list(rows)
        replace_file(self.path, _csv(self.rows, header=True).encode())

    def add(self, row: Row) -> None:
        """Add one row."""
        text = _csv([row], header=not self.rows)
        self.rows.append(row)
        with saying_what_was_lost(self.path), open(self.path, "a", newline="") as file:
            file.write(text)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that can be read: its file and its content, whose entries are of the right kinds.

    Besides the entries that `RunFolder.save_checkpoint` names, there may be others.
    """

    file: Path
    content: Mapping[str, Any]


class RunFolder:
    """The folder of one run, made if it does not exist."""

    def __init__(self, path: Path) -> None:
        make_folder(path)
        self.path = path
        self.tasks = Table(path / "tasks.csv")
        self.forgetting = Table(path / "forgetting.csv")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which says that the run has ended and how; its rows are on the disk by then."""
        for table in (self.tasks, self.forgetting):
            sync(table.path)
        replace_file(self.path / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")

    def remove_summary(self) -> None:
        """Remove the summary of a run that resumes: it failed, or had fewer tasks."""
        remove_summary(self.path)

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write checkpoint.pt; the one before it becomes checkpoint.previous.pt.

        `checkpoint` has at least `config_hash`, `task`, `step_in_task`, `state` (tensors by path) and
        `recorded`: what `Recorder` needs to continue its tables and its summary.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        # The file is a zip archive. One entry more can be read alone; its comment, at the end, is a checksum.
        position = {name: checkpoint.get(name) for name in _NEWEST}
        with zipfile.ZipFile(buffer, "a") as archive:
            top = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{top}/{_POSITION}", json.dumps(position))
            archive.comment = bytes(_DIGEST_SIZE)
        content = buffer.getvalue()[:-_DIGEST_SIZE]
        current, previous = (self.path / name for name in _CHECKPOINTS)
        fresh = write_beside(current, content + _digest(content))
        with saying_what_was_lost(current):
            if current.exists():
                os.replace(current, previous)
            os.replace(fresh, current)

    def load_checkpoints(self) -> list[SavedCheckpoint]:
        """The checkpoints that can be used, newest first; says in a line where one cannot."""
        found = []
        for path in (self.path / name for name in _CHECKPOINTS):
            try:
                found.append(SavedCheckpoint(path, _checked_checkpoint(path)))
            except FileNotFoundError:
                continue
            except Exception as error:  # a damaged file can raise anything
                reason = str(error) if isinstance(error, _Damaged) else type(error).__name__
                log.warning("%s is damaged (%s): it is passed over.", path, reason)
        return found

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint's file, in whatever state."""
        return any((self.path / name).exists() for name in _CHECKPOINTS)

    def resume_from(self, checkpoint: Path) -> None:
        """Make this file the newest checkpoint: no damaged one, nor one ahead, may become its predecessor."""
        current = self.path / _CHECKPOINTS[0]
        if checkpoint != current:
            with saying_what_was_lost(current):
                os.replace(checkpoint, current)

    def drop_checkpoints(self, keep_last: bool) -> None:
        """Remove the predecessor, once the last checkpoint of a finished run is in place; or both."""
        for name in _CHECKPOINTS[keep_last:]:
            with saying_what_was_lost(self.path / name):
                (self.path / name).unlink(missing_ok=True)


def checkpoint_position(folder: Path) -> tuple[int, int] | None:
    """The task and the step in it of the newest checkpoint that seems whole; reads no tensors."""
    newest = _newest_position(folder)
    return None if newest is None else (newest["task"], newest["step_in_task"])


def resume_point(folder: Path) -> tuple[int, int, bool] | None:
    """As `checkpoint_position`, of the newest one whose checksum is right, and whether its steps were native.

    A damaged one would take the runs that it is trained with back to the point that all of them have.
    """
    newest = _newest_position(folder, checked=True)
    if newest is None:
        return None
    return newest["task"], newest["step_in_task"], bool(newest.get("native"))


def data_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the data that the run in this folder trained on; None where nothing says it."""
    summary = read_summary(folder)
    found = (summary or {}).get("data_fingerprint")
    if found is None:
        found = (_newest_position(folder) or {}).get("data_fingerprint")
    return found if isinstance(found, str) else None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What the summary.json in this folder says; None where there is none, or none that is whole.

    It then has a `status`, a `score`, a finite number or None, and its `score_name` or None.
    """
    path = folder / "summary.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _say_unusable(path, error.strerror or type(error).__name__)
        return None
    try:
        summary = json.loads(content)
    except (ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict) or summary.get("status") not in _STATUSES:
        _say_unusable(path, "it is damaged")
        return None
    # Runs of the time before there was a choice have no "score".
    before = "total_average_online_accuracy"
    name = summary.get("score_name", before)
    score = summary.get("score", summary.get(before))
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        score = None
    return {**summary, "score": score, "score_name": name if isinstance(name, str) else None}


def remove_summary(folder: Path) -> None:
    """Remove the summary in this folder, if there is one, damaged or not."""
    with saying_what_was_lost(folder / "summary.json"):
        (folder / "summary.json").unlink(missing_ok=True)


@functools.cache
def _say_unusable(path: Path, reason: str) -> None:
    """Once for each file: whoever waits for runs looks at their summaries again and again."""
    log.warning("%s cannot be read (%s): the run counts as unfinished.", path, reason)


class _Damaged(Exception):
    """Why a checkpoint cannot be used, in a few words."""


def _checked_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint whose checksums and entries are right; raises anything if they are not."""
    import torch

    content = path.read_bytes()
    if not content:
        raise _Damaged("it is empty")
    if not _is_whole(content):
        raise _Damaged("its checksum is wrong")
    saved = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    if not isinstance(saved, dict):
        raise _Damaged(f"it holds a {type(saved).__name__}")
    kinds = {"config_hash": str, "task": int, "step_in_task": int, "state": dict, "recorded": dict}
    recorded = {"tasks": list, "forgetting": list, "columns": dict}
    for of, wanted in ((saved, kinds), (saved.get("recorded"), recorded)):
        for name, kind in wanted.items():
            if not isinstance(of, dict) or not isinstance(of.get(name), kind):
                raise _Damaged(f"it has no '{name}'")
    rows = [*saved["recorded"]["tasks"], *saved["recorded"]["forgetting"]]
    is_whole = (
        all(isinstance(tensor, torch.Tensor) for tensor in saved["state"].values())
        and all(isinstance(row, dict) for row in rows)
        and (len(saved["recorded"]["tasks"]) == saved["task"] or saved["recorded"].get("diverged_at"))
        and saved["step_in_task"] >= 0
    )
    if not is_whole:
        raise _Damaged("its entries are of another kind")
    return saved


def _is_whole(content: bytes) -> bool:
    """Whether a checkpoint's checksum is that of its content."""
    return _digest(content[:-_DIGEST_SIZE]) == content[-_DIGEST_SIZE:]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _newest_position(folder: Path, checked: bool = False) -> dict[str, Any] | None:
    for path in (folder / name for name in _CHECKPOINTS):
        try:
            if checked and not _is_whole(path.read_bytes()):
                continue
            with zipfile.ZipFile(path) as archive:
                top = archive.namelist()[0].partition("/")[0]
                found = json.loads(archive.read(f"{top}/{_POSITION}"))
            if all(isinstance(found[name], int) for name in ("task", "step_in_task")):
                return dict(found)
        except Exception:  # not there, or damaged in whatever way: that is said when it is to be used
            continue
    return None


def read_tasks(path: Path) -> list[Row]:
    """The whole rows of the tasks.csv in this folder, numbers as numbers; none where there is none."""
    try:
        text = (path / "tasks.csv").read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path / 'tasks.csv'} cannot be read ({error}).") from error
    whole = text[: text.rfind("\n") + 1]  # a process that is killed may leave a part of a row
    rows = list(csv.DictReader(io.StringIO(whole)))
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path / 'tasks.csv'} is damaged: a row has more or fewer cells than the header.")
    return [{key: _value(key, cell) for key, cell in row.items()} for row in rows]


def _value(column: str, cell: str) -> float | int | str:
    if column == "task_type":
        return cell
    try:
        return int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            return cell


def _csv(rows: list[Row], header: bool) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    for row in rows:
        # Nine digits give back a float32 exactly.
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
