"""Runs of a sweep that other processes hold: the workers of a launcher that was killed, above all."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from continual.config import Replica
from continual.errors import Stopped
from continual.tracking.lock import InUseError, holder
from continual.tracking.run_status import record_failure

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5
_MOST_SECONDS = 120


def held(folders: Iterable[Path]) -> dict[Path, str]:
    """Those of these folders that a process holds, with its name."""
    return {folder: owner for folder in folders if (owner := holder(folder)) is not None}


def wait_for_others(runs: Iterable[Replica], should_stop: Callable[[], bool]) -> None:
    """Wait until no other process holds one of these runs; a worker without a launcher ends after its chunk.

    InUseError, which says who holds them, if that takes longer than two minutes.
    """
    until = time.monotonic() + _MOST_SECONDS
    taken = held(run.folder for run in runs)
    if taken:
        log.warning("waiting for %s.", _who(taken))
    while taken:
        if should_stop():
            raise Stopped(f"stopped while waiting for {_who(taken)}.")
        if time.monotonic() > until:
            raise InUseError(f"{_who(taken)}; wait for that to end, then start the same command again.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        taken = held(taken)


def record_unless_held(runs: Iterable[Replica], reason: str) -> None:
    """Record a failure in those of these runs' folders that no process holds."""
    for run in runs:
        if holder(run.folder) is None:
            record_failure(run, reason)


def _who(taken: dict[Path, str]) -> str:
    folder, owner = next(iter(taken.items()))
    if len(taken) == 1:
        return f"{owner}, which trains {folder}"
    return f"{owner}, which trains {folder}, and the like in {len(taken) - 1} more folders"
