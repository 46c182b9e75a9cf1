"""What one replica records: its rows, its status, its checkpoint; in its folder and in W&B."""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Replica
from continual.identity import config_hash, resume_hash
from continual.provenance import submitted, versions
from continual.scoring import Score
from continual.tracking.run_folder import Row, RunFolder
from continual.tracking.score import ONLINE_ACCURACY, RunningScore, declared_score, measure_of, score_of
from continual.tracking.storage import StorageError
from continual.tracking.wandb_run import WandbRun, WandbWriter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A replica at a point, (task, steps done in it): its state and what it had recorded.

    `native` says whether its steps were replayed from native code.
    """

    file: Path
    position: tuple[int, int]
    state: "Mapping[str, Tensor]"
    recorded: Mapping[str, Any]
    native: bool


class Recorder:
    """Writes one replica's results while its population trains.

    `status` is "running", then "completed", "diverged" or "failed". A diverged replica records nothing
    from the task on in which its loss stopped being finite, and has no total. `wandb` writes the W&B runs of
    the population; without it there is none.
    """

    def __init__(
        self,
        replica: Replica,
        replicas: int,
        wandb: WandbWriter | None = None,
        data_fingerprint: str | None = None,
    ) -> None:
        self.replica = replica
        self._data_fingerprint = data_fingerprint
        self.status = "running"
        self._folder = RunFolder(replica.folder)
        self._replicas = replicas
        self._columns: Row = {}
        self._declared = declared_score(replica.config)
        self._diverged_at = 0
        self._is_over = False
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._hash, self._resume_hash = config_hash(replica.config), resume_hash(replica.config)
        self._wandb = wandb
        self._live: WandbRun | None = None
        self._running = RunningScore(replica.config)

    @property
    def score_name(self) -> str | None:
        """What the score is called; None if the environment has none."""
        return None if self._declared is None else self._declared.name

    @property
    def score(self) -> float | None:
        """What the run is compared by, so far; None if it diverged or its environment has no score."""
        return self._mean(self._declared)

    def _mean(self, score: Score | None) -> float | None:
        if self.status == "diverged":
            return None
        return score_of(self.replica.config, self._folder.tasks.rows, score)

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints in the folder that belong to this config, newest first."""
        return [
            Checkpoint(
                saved.file,
                (saved.content["task"], saved.content["step_in_task"]),
                saved.content["state"],
                saved.content["recorded"],
                saved.content.get("native", False),
            )
            for saved in self._folder.load_checkpoints()
            if saved.content["config_hash"] == self._resume_hash
            and saved.content.get("data_fingerprint", self._data_fingerprint) == self._data_fingerprint
        ]

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is any in the folder, of whatever config and state."""
        return self._folder.has_checkpoints

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Begin to record, from the start or from a checkpoint."""
        if checkpoint:
            self._folder.resume_from(checkpoint.file)
        recorded = checkpoint.recorded if checkpoint else {}
        self._folder.remove_summary()
        self._folder.tasks.start(recorded.get("tasks", []))
        if self.replica.config["metrics"]["forgetting"]:
            self._folder.forgetting.start([self._padded(row) for row in recorded.get("forgetting", [])])
        self._columns = dict(recorded.get("columns", {}))
        self._seconds_before = recorded.get("wall_seconds", 0.0)
        if recorded.get("diverged_at"):
            self.mark_diverged(recorded["diverged_at"])
        mode = self.replica.config["wandb"]["mode"]
        if self._wandb and mode == "offline":
            self._wandb.write_on_close(self.replica)
        elif self._wandb and mode == "online":
            self._live = WandbRun.of(self.replica)
            self._wandb.start(self._live, resumed=checkpoint is not None)
            # A killed process loses what W&B did not have yet; a row that is logged again does no harm.
            for row in self._folder.tasks.rows:
                self._log(row)

    def add_columns(self, columns: Row) -> None:
        """Record what the row of the task in progress will have besides the rest."""
        self._columns |= columns

    def add_task(self, row: Row) -> None:
        """Record a finished task."""
        row, self._columns = {**row, **self._columns}, {}
        self._folder.tasks.add(row)
        self._log(row)

    def add_accuracies(self, accuracies: Sequence[float]) -> None:
        """Record the test accuracy on each task so far, after the last of them."""
        row: Row = {"task": len(accuracies) - 1}
        row |= {str(m): accuracy for m, accuracy in enumerate(accuracies)}
        self._folder.forgetting.add(self._padded(row))

    def _padded(self, row: Row) -> Row:
        """The row with an empty place for each later task: more of them in a run that is prolonged."""
        return row | {
            str(m): "" for m in range(int(row["task"]) + 1, self.replica.config["env"]["num_tasks"])
        }

    def mark_diverged(self, step: int) -> None:
        """The loss was not finite at this step (counted from 1 over all tasks)."""
        self.status, self._diverged_at = "diverged", step

    def save_checkpoint(
        self, position: tuple[int, int], state: "Mapping[str, Tensor]", native: bool = False
    ) -> None:
        """Make this the point from which the run resumes: a task, and the steps done in it.

        `native` says whether steps are replayed from native code.
        """
        self._folder.save_checkpoint(
            {
                "config_hash": self._resume_hash,
                "data_fingerprint": self._data_fingerprint,
                "task": position[0],
                "step_in_task": position[1],
                "native": native,
                "state": dict(state),
                "recorded": {
                    "tasks": self._folder.tasks.rows,
                    "forgetting": self._folder.forgetting.rows,
                    "columns": self._columns,
                    "diverged_at": self._diverged_at,
                    "wall_seconds": self._seconds(),
                },
            }
        )

    def finish(self) -> None:
        """The run is over: completed, unless it diverged."""
        if self.status == "running":
            self.status = "completed"
        self._end({})
        self._folder.drop_checkpoints(keep_last=self.replica.config["engine"]["keep_checkpoint"])

    def fail(self, reason: str) -> None:
        """The program stopped with an error; a run that was over by then stays as it ended."""
        if self._is_over:
            return
        self.status = "failed"
        # Where there is no room for a checkpoint, there may be none for this: it was said anyway.
        with contextlib.suppress(StorageError):
            self._end({"error": reason})

    def _end(self, more: Mapping[str, Any]) -> None:
        rows = self._folder.tasks.rows
        summary = {
            "status": self.status,
            "score": self.score,
            "score_name": self.score_name,
            "higher_is_better": None if self._declared is None else self._declared.higher_is_better,
            **self._total(),
            "num_tasks": len(rows),
            "steps": rows[-1]["step"] if rows else 0,
            "wall_seconds": round(self._seconds(), 3),
            "replicas": self._replicas,
            "config_hash": self._hash,
            **({"data_fingerprint": self._data_fingerprint} if self._data_fingerprint else {}),
            "versions": versions(),
            **submitted.record(),
            **({"diverged_at_step": self._diverged_at} if self._diverged_at else {}),
            **self._transfer(),
            **more,
        }
        self._folder.write_summary(summary)
        self._is_over = True
        if self._wandb and self._live:
            self._wandb.end(self._live, summary)

    def _log(self, row: Row) -> None:
        if self._wandb and self._live:
            self._wandb.log(self._live, {**row, "score": self._running.add(row)})

    def _total(self) -> dict[str, float | None]:
        """The total average online accuracy, where accuracy is what the environment's loss is measured by."""
        if measure_of(self.replica.config) != "accuracy":
            return {}
        return {ONLINE_ACCURACY.name: self._mean(ONLINE_ACCURACY)}

    def _transfer(self) -> dict[str, float | None]:
        """Backward transfer, of a completed run that tested its past tasks."""
        rows = self._folder.forgetting.rows
        if self.status != "completed" or not rows:
            return {}
        from continual.metrics import backward_transfer, one_step_backward_transfer

        accuracy_KM = [
            [float("nan") if m > k else row[str(m)] for m in range(len(rows))] for k, row in enumerate(rows)
        ]
        measures = {
            "backward_transfer": backward_transfer(accuracy_KM),
            "one_step_backward_transfer": one_step_backward_transfer(accuracy_KM),
        }
        return {name: None if math.isnan(value) else value for name, value in measures.items()}

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started
