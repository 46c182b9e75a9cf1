"""How a sweep stands, as its folder, its locks and SLURM's queue say it. Costs no import of torch."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from continual.errors import UserError
from continual.sweep import slurm_queue
from continual.sweep.manifest import Manifest
from continual.tracking.lock import holder
from continual.tracking.progress import Snapshot
from continual.tracking.run_folder import read_summary
from continual.tracking.storage import replace_file

_PROGRESS = "progress.json"
_SECONDS_BETWEEN_WRITINGS = 2.0


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
        score = summary["score"]
        error = str(summary.get("error") or "").strip().splitlines()
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


class ProgressFile:
    """Leaves how far a sweep is that trains here in its folder, for whoever looks at it.

    `replica_steps` is the sum of steps times replicas over all that is to be trained.
    """

    def __init__(self, sweep: Path, replica_steps: int) -> None:
        self._path, self._all = sweep / _PROGRESS, replica_steps
        self._done: dict[int, int] = {}
        self._before: dict[int, int] = {}  # what a population had done at its first snapshot
        self._began = self._written = time.monotonic()

    def update(self, population: int, snapshot: Snapshot) -> None:
        """Take in where a population is. That nothing can be written does not matter."""
        done = snapshot.steps_done * snapshot.replicas
        self._before.setdefault(population, done)
        self._done[population] = done
        now = time.monotonic()
        if now - self._written < _SECONDS_BETWEEN_WRITINGS:
            return
        self._written = now
        total, new = sum(self._done.values()), sum(self._done.values()) - sum(self._before.values())
        left = (self._all - total) * (now - self._began) / new if new > 0 else None
        content = {"replica_steps_done": total, "replica_steps": self._all, "seconds_left": left}
        with contextlib.suppress(OSError, UserError):
            replace_file(self._path, json.dumps(content).encode() + b"\n")

    def remove(self) -> None:
        """Nothing is trained any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def seconds_left(sweep: Path) -> float | None:
    """How long the process that trains a sweep will take, as it last said; None if that is not known."""
    try:
        left = json.loads((sweep / _PROGRESS).read_bytes())["seconds_left"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return max(0.0, float(left)) if isinstance(left, int | float) else None
