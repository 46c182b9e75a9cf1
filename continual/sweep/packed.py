"""Trains the runs of a sweep on this machine, those of one structure together."""

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from continual import schema
from continual.config import Replica, num_steps
from continual.errors import Stopped, UserError
from continual.machine import cores, device, visible_gpus
from continual.schema import Count
from continual.sweep.launcher import Launcher, queued_jobs
from continual.sweep.manifest import Manifest
from continual.sweep.others import record_unless_held
from continual.sweep.states import ProgressFile
from continual.sweep.stopping import StopRequests
from continual.tracking import run_status
from continual.tracking.progress import Progress, Snapshot
from continual.tracking.run_status import Outcome
from continual.tracking.wandb_run import Outages

if TYPE_CHECKING:
    from continual.sweep.workers import Failure

log = logging.getLogger(__name__)


class PackedLauncher(Launcher):
    """Trains the runs of a sweep on this machine.

    `workers` processes train one population each at a time ("auto": one for each CPU core or visible GPU);
    with one, they train in this process.
    """

    def __init__(self, workers: Literal["auto"] | Count = "auto") -> None:
        self.workers = workers

    def claim(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> Sequence[Replica]:
        """See Launcher; UserError if SLURM is still to train some of them."""
        theirs = queued_jobs(manifest, {manifest.name(run.folder) for run in runs})
        if theirs:
            raise UserError(
                f"{manifest.sweep} has {len(theirs)} jobs in SLURM's queue; "
                f"wait for them or cancel them: python scripts/sweep.py wait|cancel {manifest.sweep}"
            )
        return super().claim(runs, manifest, stop)

    def train(self, runs: Sequence[Replica], manifest: Manifest, stop: StopRequests) -> dict[Path, str]:
        """See Launcher."""
        # A second: a sweep that is finished does without.
        from continual.pausing import Interrupted
        from continual.sweep import workers

        populations, how_many = self._populations(runs)
        log.info(
            "training %d population%s in %d process%s",
            len(populations),
            "s" * (len(populations) > 1),
            how_many,
            "es" * (how_many > 1),
        )
        steps = sum(len(p) * num_steps(p[0].config) for p in populations)
        file = ProgressFile(manifest.sweep, steps)
        try:
            in_all = max(len(manifest.runs), len(runs))
            with Progress(steps, runs=in_all, finished=in_all - len(runs)) as progress:
                for i, population in enumerate(populations):
                    progress.expect(i, _standing(population))

                def report(index: int, snapshot: Snapshot) -> None:
                    progress.update(index, snapshot)
                    file.update(index, snapshot)

                if how_many > 1:
                    gpus = visible_gpus(runs[0].config["device"])
                    results = workers.run(populations, how_many, report, stop, manifest.code, gpus)
                else:
                    outages = Outages()
                    results = [_train_here(p, i, report, stop, outages) for i, p in enumerate(populations)]
        except Interrupted:
            raise Stopped(
                "stopped, with checkpoints written; to resume: the same command again, or "
                f"python scripts/sweep.py resume {manifest.sweep}"
            ) from None
        finally:
            file.remove()
        reasons: dict[Path, str] = {}
        for population, result in zip(populations, results, strict=True):
            if isinstance(result, workers.Failure):
                record_unless_held(population, result.reason)
                unfinished = [run for run in population if run_status.outcome_of(run) is None]
                reasons |= {run.folder: result.reason for run in unfinished}
                if not unfinished:
                    log.warning("after its runs had ended, a population failed: %s", result.reason)
        return reasons

    def _populations(self, runs: Sequence[Replica]) -> tuple[list[list[Replica]], int]:
        """The populations and how many worker processes to train them in."""
        from continual.fitting import population_size
        from continual.sweep.packing import pack

        wanted = populations_at_a_time(self.workers, runs[0].config["device"])
        if any(names_main(run) for run in runs):
            wanted = 1  # another process cannot import what this one's main module defines
        populations = pack(runs, population_size, wanted)
        return populations, min(wanted, len(populations))


def _standing(population: Sequence[Replica]) -> Snapshot:
    """Where a population stands that is yet to be trained: its runs are at the same point."""
    env = population[0].config["env"]
    task, step = run_status.position(population[0]) or (0, 0)
    return Snapshot(
        tasks_done=task,
        num_tasks=env["num_tasks"],
        steps_done=min(num_steps(population[0].config), num_steps(population[0].config, task) + step),
        num_steps=num_steps(population[0].config),
        replicas=len(population),
        measure="",
        online=None,
    )


def names_main(run: Replica) -> bool:
    """Whether a run's config names what the main module of this process defines, as a notebook does."""
    return any(target.startswith("__main__.") for target in schema.targets(run.config))


def _train_here(
    population: list[Replica],
    index: int,
    report: Callable[[int, Snapshot], None],
    stop: StopRequests,
    outages: Outages,
) -> "list[Outcome] | Failure":
    from continual import training
    from continual.sweep.workers import Failure

    try:
        return training.train(population, lambda snapshot: report(index, snapshot), stop, outages)
    except training.Interrupted:
        raise
    except UserError as error:
        return Failure(str(error))
    except Exception:
        return Failure(traceback.format_exc())


def populations_at_a_time(workers: Literal["auto"] | int, device_name: str) -> int:
    """How many populations `workers` lets train at a time on this device; ConfigError if it is not here."""
    if workers != "auto":
        return int(workers)
    if device(device_name).type != "cuda":
        return cores()
    return max(1, len(visible_gpus(device_name)))
