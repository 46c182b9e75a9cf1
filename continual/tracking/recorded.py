"""What a run has recorded, read from its folder: rows, the score so far after each of them, the summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.config import Replica
from continual.errors import UserError
from continual.tracking.run_folder import Row, read_summary, read_tasks
from continual.tracking.score import RunningScore


@dataclass(frozen=True)
class RecordedRun:
    """A run as it is in its folder. `summary` is None if it has not ended; a score, before one counts."""

    rows: Sequence[Row]
    scores: Sequence[float | None]
    summary: Mapping[str, Any] | None

    @classmethod
    def read(cls, replica: Replica) -> "RecordedRun":
        """Read the folder; UserError if that cannot be done."""
        rows = read_tasks(replica.folder)
        if not all(isinstance(row.get(column), int) for row in rows for column in ("task", "step")):
            raise UserError(f"{replica.folder / 'tasks.csv'} is damaged: it lacks tasks or steps.")
        running = RunningScore(replica.config)
        return cls(rows, [running.add(row) for row in rows], read_summary(replica.folder))

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows or self.summary)

    @property
    def status(self) -> str | None:
        """How the run ended, None if it has not."""
        return str(self.summary["status"]) if self.summary else None
