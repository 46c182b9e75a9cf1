"""How a run stands, as its folder says it. Costs no import of torch."""

from dataclasses import dataclass

from continual.config import Replica
from continual.tracking.run_folder import RunFolder, read_summary


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` as in summary.json, and its total average online accuracy."""

    status: str
    total_average_online_accuracy: float | None


def outcome_of(replica: Replica) -> Outcome | None:
    """How the run in this folder ended, or None if it has not ended or had failed."""
    summary = read_summary(replica.folder)
    if summary is None or summary["status"] == "failed":
        return None
    return Outcome(summary["status"], summary["total_average_online_accuracy"])


def position(replica: Replica) -> tuple[int, int] | None:
    """The task and the step in it from which the run would resume, or None if it has no checkpoint."""
    return RunFolder(replica.folder).checkpoint_position() if replica.folder.exists() else None


def has_ended(replica: Replica) -> bool:
    """Whether this run is over, well or not."""
    return (replica.folder / "summary.json").exists()


def forget_failure(replica: Replica) -> None:
    """A run that had failed is to be tried again: its folder says so no more."""
    if outcome_of(replica) is None and replica.folder.exists():
        RunFolder(replica.folder).remove_summary()


def record_failure(replica: Replica, reason: str) -> None:
    """Say in the run's folder that it failed, where the run itself could not."""
    if read_summary(replica.folder) is None:
        from continual.tracking.recorder import Recorder  # takes as long as importing torch

        Recorder(replica, replicas=1).fail(reason)
