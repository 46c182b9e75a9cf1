"""The files of one run: its tables, summary.json and the checkpoint.

Summary and checkpoint are never half-written under their final names, whenever the process is killed: they
are written beside their place and renamed into it. Tables grow line by line; a checkpoint holds their rows
too, so that a resumed run's tables have each task once, wherever it had got to after the checkpoint.
"""

import contextlib
import csv
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from continual.errors import UserError

Row: TypeAlias = dict[str, float | int | str]

log = logging.getLogger(__name__)


class StorageError(UserError):
    """A file of a run cannot be written."""


class Table:
    """A CSV file that grows by rows with the same columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def start(self, rows: list[Row]) -> None:
        """Begin with these rows: none, or those of the checkpoint that a run goes on from."""
        self.rows = list(rows)
        replace_file(self.path, _csv(self.rows, header=True).encode())

    def add(self, row: Row) -> None:
        """Add one row."""
        text = _csv([row], header=not self.rows)
        self.rows.append(row)
        with _saying_what_was_lost(self.path), open(self.path, "a", newline="") as file:
            file.write(text)


class RunFolder:
    """The folder of one run, made if it does not exist."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.tasks = Table(path / "tasks.csv")
        self.forgetting = Table(path / "forgetting.csv")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which says that the run has ended and how."""
        replace_file(self.path / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")

    def remove_summary(self) -> None:
        """Remove the summary of a failed run, which no longer holds once the run goes on."""
        (self.path / "summary.json").unlink(missing_ok=True)

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write checkpoint.pt; the one before it becomes checkpoint.previous.pt."""
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        current = self.path / "checkpoint.pt"
        fresh = _write_beside(current, buffer.getvalue())
        if current.exists():
            os.replace(current, self._previous)
        os.replace(fresh, current)

    def load_checkpoints(self) -> list[tuple[Path, dict[str, Any]]]:
        """The checkpoints that can be read, newest first, each with its file; says where one is damaged."""
        found = []
        for path in (self.path / "checkpoint.pt", self._previous):
            try:
                found.append((path, torch.load(path, weights_only=True, map_location="cpu")))
            except FileNotFoundError:
                continue
            except Exception as error:  # a damaged file can raise anything
                log.warning("%s is damaged (%s); looking for the one before it.", path, type(error).__name__)
        return found

    def go_on_from(self, checkpoint: Path) -> None:
        """Make this file the newest checkpoint: no damaged one, nor one ahead, may become its predecessor."""
        current = self.path / "checkpoint.pt"
        if checkpoint != current:
            os.replace(checkpoint, current)

    def checkpoint_position(self) -> tuple[int, int] | None:
        """The task and the step in it of the newest checkpoint that can be read; reads no tensors."""
        for path in (self.path / "checkpoint.pt", self._previous):
            try:
                saved = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
                return saved["task"], saved["step_in_task"]
            except Exception:  # not there, or damaged: that is said when it is to be used
                continue
        return None

    def drop_previous_checkpoint(self) -> None:
        """Remove the predecessor, once the last checkpoint of a finished run is in place."""
        self._previous.unlink(missing_ok=True)

    @property
    def _previous(self) -> Path:
        return self.path / "checkpoint.previous.pt"


def read_summary(path: Path) -> dict[str, Any] | None:
    """What the summary.json in this folder says, or None where there is none."""
    try:
        return dict(json.loads((path / "summary.json").read_bytes()))
    except FileNotFoundError:
        return None


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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that under its name there is always the one before or the whole of this one."""
    os.replace(_write_beside(path, content), path)


def _write_beside(path: Path, content: bytes) -> Path:
    """Write and sync `<name>.tmp`; without the sync, a crash could leave the new name on an empty file."""
    fresh = path.with_name(path.name + ".tmp")
    with _saying_what_was_lost(path):
        try:
            with open(fresh, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    return fresh


@contextlib.contextmanager
def _saying_what_was_lost(path: Path) -> Iterator[None]:
    """A file that cannot be written is the user's to mend: a full disk, a quota, a lost mount."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror}); "
            "make room and start the same command again, which goes on from the last checkpoint."
        ) from error
