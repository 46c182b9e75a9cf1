"""How a run stands, as its folder says it. Costs no import of torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from continual.config import Replica
from continual.errors import ConfigError
from continual.tracking import run_folder
from continual.tracking.run_folder import (
    checkpoint_position,
    data_fingerprint,
    read_summary,
    remove_summary,
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` as in summary.json, its score, and what that is called.

    Both are None where the environment has no score.
    """

    status: str
    score: float | None
    score_name: str | None


def outcome_of(replica: Replica) -> Outcome | None:
    """How the run in this folder ended; None if it has not, had failed, or is to have more tasks now."""
    summary = read_summary(replica.folder)
    if summary is None or summary["status"] == "failed" or _is_shorter(summary, replica):
        return None
    return Outcome(summary["status"], summary["score"], summary["score_name"])


def position(replica: Replica) -> tuple[int, int] | None:
    """The task and the step in it from which the run would resume, or None if it has no checkpoint."""
    return checkpoint_position(replica.folder)


def resume_point(replica: Replica) -> tuple[int, int, bool] | None:
    """What runs must have in common to resume together: their position, and how steps were done."""
    return run_folder.resume_point(replica.folder)


def has_ended(replica: Replica) -> bool:
    """Whether this run is over, well or not."""
    summary = read_summary(replica.folder)
    return summary is not None and not _is_shorter(summary, replica)


def failure(replica: Replica) -> str | None:
    """Why this run failed; None if it did not."""
    summary = read_summary(replica.folder)
    return str(summary.get("error")) if summary is not None and summary["status"] == "failed" else None


def forget_failure(replica: Replica) -> None:
    """A run that had failed, or is to have more tasks, is trained again: its folder says so no more."""
    if outcome_of(replica) is None:
        remove_summary(replica.folder)


def record_failure(replica: Replica, reason: str) -> None:
    """Say in the run's folder that it failed, where the run itself could not."""
    if read_summary(replica.folder) is None:
        from continual.tracking.recorder import Recorder  # takes as long as importing torch

        Recorder(replica, replicas=1).fail(reason)


def check_data(replica: Replica, fingerprint: str | None) -> None:
    """ConfigError if the run in this folder was trained on other data than those with this fingerprint."""
    before = data_fingerprint(replica.folder)
    if None not in (before, fingerprint) and before != fingerprint:
        raise ConfigError(
            f"the output folder {replica.folder} holds a run on other data (their fingerprint was {before}, "
            f"now it is {fingerprint}); choose another folder, or put the data back as they were."
        )


def _is_shorter(summary: Mapping[str, Any], replica: Replica) -> bool:
    """Whether a completed run had fewer tasks than are asked for now."""
    num_tasks = summary.get("num_tasks")
    is_number = isinstance(num_tasks, int)
    return summary["status"] == "completed" and is_number and num_tasks < replica.config["env"]["num_tasks"]
