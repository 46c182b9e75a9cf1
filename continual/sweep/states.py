"""How a sweep stands, as its folder, its locks and SLURM's queue say it. Costs no import of torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.errors import UserError
from continual.sweep import slurm_queue
from continual.sweep.manifest import Manifest
from continual.tracking.lock import holder
from continual.tracking.run_folder import read_summary


@dataclass(frozen=True)
class RunState:
    """A run's state, how many tasks it has finished, its score if it is over, and why it failed."""

    state: str
    tasks_done: int
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SweepState:
    """All runs of a sweep by name; which process trains it here; its SLURM jobs; tasks of a run, if known."""

    runs: Mapping[str, RunState]
    owner: str | None
    queue: Mapping[str, slurm_queue.QueuedJob]
    notes: list[str]

    def of_state(self, *states: str) -> list[str]:
        """The names of the runs in one of these states."""
        return [name for name, run in self.runs.items() if run.state in states]

    @property
    def is_alive(self) -> bool:
        """Whether a process or a job trains a run of it, or is about to."""
        return bool(self.owner or self.queue or self.of_state("running"))


def look(manifest: Manifest) -> SweepState:
    """Look at a sweep: nothing is waited for, nothing is written, and no damaged run hides the others."""
    notes: list[str] = []
    try:
        queue = queue_of(manifest)
    except UserError as error:  # the folder says a good deal without it
        notes.append(str(error))
        queue = {}
    owner = holder(manifest.sweep)
    waiting = {name: queue[job].state.lower() for job in queue for name in manifest.submissions[job]}
    runs = {}
    for name in manifest.runs:
        try:
            runs[name] = _run(manifest, name, owner, waiting.get(name))
        except UserError as error:
            runs[name] = RunState("damaged", 0, reason=str(error))
    return SweepState(runs, owner, queue, notes)


def queue_of(manifest: Manifest) -> dict[str, slurm_queue.QueuedJob]:
    """The sweep's jobs that are waiting or running; UserError if it has some and SLURM does not answer."""
    if not manifest.submissions:
        return {}
    queue = slurm_queue.queued()
    if queue is None:
        raise UserError("SLURM does not answer (squeue); try again on a machine where it does.")
    return {job: found for job, found in queue.items() if job in manifest.submissions}


def _run(manifest: Manifest, name: str, owner: str | None, queued: str | None) -> RunState:
    folder = manifest.sweep / name
    summary = read_summary(folder)
    done = _rows(folder / "tasks.csv")
    if summary is not None:
        score = summary.get("total_average_online_accuracy")
        error = str(summary.get("error") or "").strip().splitlines()
        if not (isinstance(score, int | float) and math.isfinite(score)):
            score = None
        return RunState(str(summary["status"]), done, score, "".join(error[-1:]))
    if holder(folder) is not None:
        return RunState("running", done)
    if queued is not None:
        return RunState(queued, done)
    if owner is not None and not manifest.submissions:
        return RunState("waiting", done)
    if name in manifest.cancelled:
        return RunState("cancelled", done)
    return RunState("interrupted" if done or (folder / "tasks.csv").exists() else "not started", done)


def _rows(table: Path) -> int:
    """The rows of a table, whose first line is the header."""
    try:
        return max(0, table.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


PROGRESS = "progress.json"
"""Where a sweep that trains here says how far it is, for whoever looks at its folder."""


def read_progress(sweep: Path) -> dict[str, Any]:
    """What the training process has left of how far it is; empty if it has not, or that is damaged."""
    try:
        content = json.loads((sweep / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
