"""Trains the jobs of a sweep on a SLURM cluster: populations as elements of job arrays, through submitit."""

import contextlib
import logging
import math
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import submitit
from annotated_types import Ge, Gt
from submitit.core.utils import FailedJobError, FailedSubmissionError

from continual.config import Config, Replica, check_engine
from continual.errors import ConfigError, Stopped, UserError
from continual.fitting import size_on_a_core
from continual.schema import Count
from continual.sweep import slurm_queue
from continual.sweep.launcher import Launcher
from continual.sweep.manifest import Manifest
from continual.sweep.others import record_unless_held
from continual.sweep.packing import pack
from continual.sweep.slurm_job import PopulationJob
from continual.sweep.stopping import StopRequests
from continual.tracking import run_status

log = logging.getLogger(__name__)

# A population on a GPU whose memory cannot be looked at from here; one that does not fit is cut in halves.
_REPLICAS_ON_A_GPU = 256
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_LINES = 60
_ANY_NUMBER = 10**6

# A signal before Python is ready for it would kill the job; it is lost instead, and SLURM's next step helps.
_PYTHON = f'bash -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


class SlurmLauncher(Launcher):
    """Submits each population as a job of an array, and waits until all runs are finished.

    Jobs that are preempted, reach their time limit or lose their node go back into the queue and resume from
    their checkpoints. Jobs that leave the queue with unfinished runs otherwise are submitted again, up to
    `max_retries` times without any progress. With `detach`, it returns once all is submitted.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        time_minutes: Count = 240,
        gpus: Annotated[int, Ge(0)] = 0,
        cpus: Count = 1,
        memory_gb: Annotated[float, Gt(0)] | None = None,
        constraint: str | None = None,
        array_parallelism: Count = 256,
        max_replicas: Literal["auto"] | Count = "auto",
        signal_seconds: Count = 90,
        max_retries: Annotated[int, Ge(0)] = 3,
        poll_seconds: Annotated[float, Gt(0)] = 10.0,
        setup: list[str] | None = None,
        sbatch: dict[str, str | int | bool] | None = None,
        detach: bool = False,
    ) -> None:
        self._max_replicas, self._gpus = max_replicas, gpus
        self._max_retries, self._poll_seconds, self.detach = max_retries, poll_seconds, detach
        # The time to write checkpoints in must leave most of a short job to the training.
        signal_seconds = min(signal_seconds, math.ceil(60 * time_minutes / 3))
        options = {
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
            "timeout_min": time_minutes,
            "nodes": 1,
            "tasks_per_node": 1,
            "gpus_per_node": gpus or None,
            "cpus_per_task": cpus,
            "mem_gb": memory_gb,
            "slurm_constraint": constraint,
            "slurm_array_parallelism": array_parallelism,
            "slurm_signal_delay_s": signal_seconds,
            "slurm_setup": list(setup or []) or None,
            "slurm_additional_parameters": {"requeue": True, **(sbatch or {})},
        }
        self._options = {name: value for name, value in options.items() if value is not None}

    def check(self, config: Config) -> None:
        """See Launcher; the GPUs are those of the jobs, not of the machine that submits them."""
        if config["device"].startswith("cuda") and not self._gpus:
            raise ConfigError(
                f"device: {config['device']} was asked for, but hydra.launcher.gpus is 0; "
                "give each job a GPU with hydra.launcher.gpus=1, or use device=cpu."
            )
        check_engine(config, "cuda" if self._gpus and config["device"] != "cpu" else "cpu")

    def claim(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> Sequence[Replica]:
        """See Launcher: all but those that jobs of this sweep train, which hold their folders."""
        theirs = {run.folder for of in still_queued(manifest, runs).values() for run in of}
        return super().claim([run for run in runs if run.folder not in theirs], manifest, stop)

    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> dict[Path, str]:
        """Submit what is not in the queue already and, unless detached, wait for all; see Launcher."""
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "hydra/launcher=slurm: there is no sbatch here; start it on a machine that submits to SLURM, "
                "or use hydra/launcher=packed."
            )
        watched = {job: _Watched(population) for job, population in still_queued(manifest, runs).items()}
        theirs = {run.folder for one in watched.values() for run in one.population}
        if theirs:
            log.info("%d runs are in SLURM's queue already", len(theirs))
        rest = [run for run in runs if run.folder not in theirs]
        populations = pack(rest, self._largest_population, workers=1)
        if stop():
            raise Stopped("stopped before its runs were submitted to SLURM.")
        watched |= self._submit([_Watched(population) for population in populations], manifest)
        if self.detach:
            command = f"python scripts/sweep.py status|wait|cancel {manifest.sweep}"
            log.info("detached with %d jobs in the queue; to see to them: %s", len(watched), command)
            return {}
        return self._wait(watched, manifest, stop)

    def _largest_population(self, run: Replica) -> int:
        asked = self._max_replicas if self._max_replicas != "auto" else run.config["engine"]["max_replicas"]
        if asked != "auto":
            return int(asked)
        if self._gpus:
            return _REPLICAS_ON_A_GPU
        from continual.building import prepare  # a second, of a launcher that has nothing to train

        learner, _ = prepare(run.config)
        return size_on_a_core(learner.network)

    def _submit(self, populations: Sequence["_Watched"], manifest: Manifest) -> dict[str, "_Watched"]:
        """Submit these populations as arrays that are no longer than the cluster allows; by job id."""
        if not populations:
            return {}
        executor = submitit.AutoExecutor(
            folder=manifest.sweep.absolute() / "slurm",
            cluster="slurm",
            slurm_max_num_timeout=_ANY_NUMBER,
            slurm_python=_PYTHON,
        )
        executor.update_parameters(name=f"continual-{manifest.sweep.name}", **self._options)
        longest, submitted = slurm_queue.longest_array(), {}
        for start in range(0, len(populations), longest):
            part = populations[start : start + longest]
            try:
                with executor.batch():  # what is submitted in here becomes one array
                    jobs = [executor.submit(PopulationJob(one.population, manifest.code)) for one in part]
            except (FailedJobError, FailedSubmissionError) as error:
                raise UserError(
                    f"SLURM took no job: {_reason(error)}; check hydra.launcher's values."
                ) from error
            for job, one in zip(jobs, part, strict=True):
                submitted[job.job_id] = one
                manifest.add_submission(job.job_id, one.population)
            # At once: what is in the queue is not to be submitted a second time.
            manifest.write()
        arrays = sorted({job.partition("_")[0] for job in submitted}, key=int)
        log.info(
            "submitted %d populations to SLURM as job%s %s",
            len(submitted),
            "s" * (len(arrays) > 1),
            ", ".join(arrays),
        )
        return submitted

    def _wait(
        self, watched: dict[str, "_Watched"], manifest: Manifest, stop: StopRequests
    ) -> dict[Path, str]:
        """Wait until the runs of these jobs have ended; returns why some did not finish, by folder."""
        reasons: dict[Path, str] = {}
        runs = [run for one in watched.values() for run in one.population]
        missing: set[str] = set()
        progress = _Lines(sum(len(one.population) for one in watched.values()))
        next_look = 0.0
        while watched:
            if stop():
                raise Stopped(
                    "stopped waiting; the jobs stay in the queue: "
                    f"python scripts/sweep.py wait|cancel {manifest.sweep}"
                )
            for job in [job for job, one in watched.items() if one.has_ended()]:
                progress.finished += len(watched.pop(job).population)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + self._poll_seconds
                queue = slurm_queue.queued()
                if queue is not None:
                    progress.say(watched, queue)
                    # A job that has just ended may be gone before its last files are seen here.
                    gone = {job for job in watched if job not in queue}
                    for job in gone & missing:
                        one = watched.pop(job)
                        reason, again = self._after_loss(job, one, manifest)
                        reasons |= {run.folder: reason for run in one.unfinished() if reason}
                        watched |= again
                    missing = gone
            if watched:
                time.sleep(min(_SECONDS_BETWEEN_LOOKS, self._poll_seconds))
        failures = {run.folder: run_status.failure(run) for run in runs}
        return reasons | {folder: reason for folder, reason in failures.items() if reason is not None}

    def _after_loss(self, job: str, one: "_Watched", manifest: Manifest) -> tuple[str, dict[str, "_Watched"]]:
        """A job left the queue with unfinished runs: why they stay so, or the jobs that resume them."""
        if not one.unfinished():
            return "", {}
        if slurm_queue.was_cancelled(job):
            manifest.add_cancelled(one.unfinished())
            manifest.write()
            return f"its SLURM job {job} was cancelled.", {}
        again = one.next_attempt()
        if again.attempts_in_vain > self._max_retries:
            reason = (
                f"its SLURM job {job} ended {again.attempts_in_vain} times without any progress; "
                f"see {manifest.sweep / 'slurm'}/{job}_0_log.err: {_last_line(manifest.sweep, job)}"
            )
            record_unless_held(one.unfinished(), reason)
            return reason, {}
        log.warning("job %s left the queue unfinished: %s", job, _last_line(manifest.sweep, job))
        return "", self._submit([again], manifest)


@dataclass
class _Watched:
    """A population in the queue, where its runs were at its submission, and how often that was in vain."""

    population: list[Replica]
    attempts_in_vain: int = 0

    def __post_init__(self) -> None:
        self._point = self._now_at()

    def unfinished(self) -> list[Replica]:
        return [run for run in self.population if not run_status.has_ended(run)]

    def has_ended(self) -> bool:
        # The last run is the last to end: while it has not, there is one file to look for.
        return all(run_status.has_ended(run) for run in reversed(self.population))

    def next_attempt(self) -> "_Watched":
        in_vain = self.attempts_in_vain + 1 if self._now_at() == self._point else 0
        return _Watched(self.unfinished(), in_vain)

    def _now_at(self) -> list[object]:
        return [run_status.position(run) for run in self.unfinished()]


class _Lines:
    """Says how far the sweep is, when something has changed, but not often."""

    def __init__(self, runs: int) -> None:
        self.finished, self._runs = 0, runs
        self._last, self._said_at = "", -math.inf

    def say(self, watched: Mapping[str, _Watched], queue: Mapping[str, slurm_queue.QueuedJob]) -> None:
        states = [queue[job].state for job in watched if job in queue]
        running = sum(state == "RUNNING" for state in states)
        jobs = f"jobs: {running} running, {len(states) - running} waiting"
        line = f"{self.finished} of {self._runs} runs ended; {jobs}"
        if line != self._last and time.monotonic() - self._said_at >= _SECONDS_BETWEEN_LINES:
            log.info("%s", line)
            self._last, self._said_at = line, time.monotonic()


def still_queued(manifest: Manifest, runs: Sequence[Replica]) -> dict[str, list[Replica]]:
    """The jobs of this sweep that have not ended, with those of these runs that they train.

    UserError if SLURM does not say: to submit a run twice would be worse.
    """
    if not manifest.submissions:
        return {}
    queue = slurm_queue.queued()
    if queue is None:
        raise UserError(
            f"{manifest.sweep} was submitted to SLURM, which does not answer now (squeue); try again later."
        )
    by_name = {manifest.name(run.folder): run for run in runs}
    found = {}
    for job, names in manifest.submissions.items():
        population = [by_name[name] for name in names if name in by_name]
        if job in queue and population:
            found[job] = population
    return found


def _reason(error: Exception) -> str:
    """The line of sbatch's that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if "error" in line.lower()] or lines
    return wanted[-1].removeprefix("sbatch: error: ").rstrip(".")


def _last_line(sweep: Path, job: str) -> str:
    """The end of what the job wrote to stderr."""
    with contextlib.suppress(OSError):
        lines = (sweep / "slurm" / f"{job}_0_log.err").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
    return "it left no log"
