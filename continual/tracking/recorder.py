"""What one replica records: its rows, its status, its checkpoint; in its folder and in W&B."""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from continual.config import Replica, config_hash
from continual.provenance import git_commit, versions
from continual.tracking.run_folder import Row, RunFolder
from continual.tracking.wandb_run import WandbRun


@dataclass(frozen=True)
class Checkpoint:
    """A replica at a point: (task, steps done in it), its state, and what it had recorded."""

    position: tuple[int, int]
    state: Mapping[str, Tensor]
    rows: list[Row]
    scored: list[float]
    diverged_at: int
    wall_seconds: float


class Recorder:
    """Writes one replica's results while its population trains.

    `status` is "running", then "completed", "diverged" or "failed". A diverged replica records nothing
    after the task in which its loss stopped being finite, and has no total.
    """

    def __init__(self, replica: Replica, replicas: int) -> None:
        self.replica = replica
        self.status = "running"
        self._folder = RunFolder(replica.folder)
        self._replicas = replicas
        self._scored: list[float] = []
        self._diverged_at = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._hash = config_hash(replica.config)
        self._wandb: WandbRun | None = None

    @property
    def total_average_online_accuracy(self) -> float | None:
        """The mean over the steps of all scored tasks, which are equally long; None if it diverged."""
        if self.status == "diverged" or not self._scored:
            return None
        return math.fsum(self._scored) / len(self._scored)

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints in the folder that belong to this config, newest first."""
        return [
            Checkpoint(
                (saved["task"], saved["step_in_task"]),
                saved["state"],
                saved["rows"],
                saved["scored"],
                saved["diverged_at"],
                saved["wall_seconds"],
            )
            for saved in self._folder.load_checkpoints()
            if saved["config_hash"] == self._hash
        ]

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Begin to record, from the start or from a checkpoint."""
        self._folder.start(checkpoint.rows if checkpoint else [])
        if checkpoint:
            self._scored = list(checkpoint.scored)
            self._seconds_before = checkpoint.wall_seconds
            if checkpoint.diverged_at:
                self.mark_diverged(checkpoint.diverged_at)
        self._wandb = self._start_wandb(resumed=checkpoint is not None)

    def add_task(self, row: Row, scored: bool) -> None:
        """Record a finished task; `scored` says whether it counts in the total."""
        self._folder.add_row(row)
        if scored:
            self._scored.append(float(row["online_accuracy"]))
        if self._wandb:
            self._wandb.log(row)

    def mark_diverged(self, step: int) -> None:
        """The loss was not finite at this step (counted from 1 over all tasks)."""
        self.status, self._diverged_at = "diverged", step

    def save_checkpoint(self, task: int, step_in_task: int, state: Mapping[str, Tensor]) -> None:
        """Make this the point from which the run goes on."""
        self._folder.save_checkpoint(
            {
                "config_hash": self._hash,
                "task": task,
                "step_in_task": step_in_task,
                "state": dict(state),
                "scored": self._scored,
                "diverged_at": self._diverged_at,
                "wall_seconds": self._seconds(),
            }
        )

    def finish(self) -> None:
        """The run is over: completed, unless it diverged."""
        if self.status == "running":
            self.status = "completed"
        self._end({})
        self._folder.drop_previous_checkpoint()

    def fail(self, reason: str) -> None:
        """The program stopped with an error."""
        self.status = "failed"
        self._end({"error": reason})

    def _end(self, more: Mapping[str, Any]) -> None:
        rows = self._folder.rows
        summary = {
            "status": self.status,
            "total_average_online_accuracy": self.total_average_online_accuracy,
            "num_tasks": len(rows),
            "steps": rows[-1]["step"] if rows else 0,
            "wall_seconds": round(self._seconds(), 3),
            "replicas": self._replicas,
            "config_hash": self._hash,
            "versions": versions(),
            "git_commit": git_commit(),
            **({"diverged_at_step": self._diverged_at} if self._diverged_at else {}),
            **more,
        }
        self._folder.write_summary(summary)
        if self._wandb:
            self._wandb.finish(summary, exit_code=int(self.status == "failed"))

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _start_wandb(self, resumed: bool) -> WandbRun:
        replica, settings = self.replica, self.replica.config["wandb"]
        folder = replica.folder.resolve()
        # The same run keeps its id when it is started again; two runs never share one.
        run_id = hashlib.sha256(f"{folder} {self._hash}".encode()).hexdigest()[:16]
        agent, env = replica.choices.get("agent", "agent"), replica.choices.get("env", "env")
        return WandbRun(
            folder=replica.folder,
            mode=settings["mode"],
            run_id=run_id,
            name=settings["name"] or f"{agent}-{env}-seed{replica.config['seed']}",
            group=settings["group"] or replica.group,
            job_type=agent,
            tags=[*dict.fromkeys([*replica.choices.values(), *settings["tags"]])],
            config=replica.config,
            project=settings["project"],
            entity=settings["entity"],
            resumed=resumed,
        )
