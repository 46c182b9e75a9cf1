"""What a run has recorded, read from its folder: rows, the score so far after each of them, the summary."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from continual import schema
from continual.config import Replica
from continual.identity import OWN_TARGETS
from continual.tracking.run_folder import Row, read_summary, read_tasks

if TYPE_CHECKING:
    from continual.envs.environment import Environment


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
        return cls(rows, running_scores(replica.config, rows), read_summary(replica.folder))

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows or self.summary)

    @property
    def status(self) -> str | None:
        """How the run ended, None if it has not."""
        return str(self.summary["status"]) if self.summary else None


def running_scores(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The mean over the scored tasks up to each row of `tasks.csv`; None before the first of them.

    A config may be a stranger's: what it names is imported only if it is this program's own. The runs of
    other environments have no scores here, unless they are loaded already.
    """
    target = str(config["env"].get("_target_"))
    if not target.startswith(OWN_TARGETS) and target.rpartition(".")[0] not in sys.modules:
        return [None] * len(rows)
    environment = cast("type[Environment]", schema.locate(target))
    scored: list[float] = []
    scores: list[float | None] = []
    for row in rows:
        if environment.is_scored(row["task"]):
            scored.append(float(row["online_accuracy"]))
        scores.append(math.fsum(scored) / len(scored) if scored else None)
    return scores
