"""What SLURM's own commands say of jobs. No accounting (`sacct`) is asked: many clusters have none."""

import math
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from continual.errors import UserError

_SECONDS = 60


@dataclass(frozen=True)
class QueuedJob:
    """A job or an array's element that is waiting or running, and where or why not."""

    state: str
    reason: str


def queued() -> dict[str, QueuedJob] | None:
    """This user's jobs that have not ended, by id (`123` or `123_4`); None if SLURM does not answer."""
    answer = _ask(["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%R"])
    if answer is None:
        return None
    jobs = {}
    for line in answer.splitlines():
        job, element, state, reason = line.strip().split("|", 3)
        jobs[f"{job}_{element}" if element.isdecimal() else job] = QueuedJob(state, reason)
    return jobs


def was_cancelled(job: str) -> bool:
    """Whether this job, which has ended, was cancelled; SLURM remembers a job for some minutes."""
    return "JobState=CANCELLED" in _shown(job)


def is_being_cancelled(job: str) -> bool:
    """Whether SLURM is about to end this running job, and not because its time is up.

    It shows a job that it ends as completing, whatever the reason.
    """
    shown = _shown(job)
    times = re.search(r"RunTime=(\S+) TimeLimit=(\S+)", shown)
    if "JobState=COMPLETING" not in shown or times is None:
        return False
    run, limit = (_seconds(text) for text in times.groups())
    return run < limit


def cancel(jobs: Iterable[str]) -> None:
    """Cancel these jobs; UserError if SLURM refuses."""
    names = list(jobs)
    for start in range(0, len(names), 500):  # a command line has an end
        answer = subprocess.run(["scancel", *names[start : start + 500]], capture_output=True, text=True)
        if answer.returncode:
            raise UserError(f"scancel failed: {' '.join(answer.stderr.split())}")


def longest_array() -> int:
    """The most elements that an array may have here (MaxArraySize)."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask(["scontrol", "show", "config"]) or "")
    return max(1, int(found[1])) if found else 1000


def _shown(job: str) -> str:
    """All that SLURM says of a job, in one line; nothing if it does not know it or does not answer."""
    return _ask(["scontrol", "show", "job", "--oneliner", job]) or ""


def _seconds(text: str) -> float:
    """Of days-hours:minutes:seconds; UNLIMITED is without end."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if found is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def _ask(command: Sequence[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout if answer.returncode == 0 else None
