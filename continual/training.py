"""An experiment, from top to bottom: tasks, chunks of steps, measures, and what is written when.

`train` is the one entry point for every way of running: a single run is a population of one.
"""

import math
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from continual import building, fitting, measuring
from continual.config import MetricsConfig, Replica, check_here
from continual.envs.environment import Environment
from continual.errors import UserError
from continual.learner import Learner
from continual.pausing import Interrupted, Pause
from continual.population import Population
from continual.resuming import resume
from continual.tracking import frozen, run_status
from continual.tracking.lock import lock_all
from continual.tracking.progress import Snapshot
from continual.tracking.recorder import Recorder
from continual.tracking.run_status import Outcome
from continual.tracking.wandb_run import Outages, WandbWriter

__all__ = ["Interrupted", "Outcome", "train"]

# How long a run's folder may be another process's: a worker whose sweep was killed leaves after its chunk.
_SECONDS_FOR_ANOTHER = 10


def train(
    replicas: Sequence[Replica],
    report: Callable[[Snapshot], None] = lambda snapshot: None,
    should_stop: Callable[[], bool] = lambda: False,
    outages: Outages | None = None,
    seconds_for_wandb: float | None = None,
) -> list[Outcome]:
    """Train replicas of one structure as one population, and write each one's results to its folder.

    Resumes from the replicas' checkpoints where there are any. `report` hears about once a second how far
    the population is; when `should_stop` says so, checkpoints are written and `Interrupted` is raised.
    `outages` are those of W&B that populations trained before met: they are warned of once. Before
    an exception is passed on, such as `Interrupted`, W&B has no more than `seconds_for_wandb`, if given.
    A population that does not fit into the device's memory is trained as two halves, one after the other.
    Raises UserError before anything is written if the config or its data will not do, or if another
    process trains one of the runs.
    """
    check_here(replicas[0].config)
    learner, environment = building.prepare(replicas[0].config)
    try:
        with lock_all((replica.folder for replica in replicas), _SECONDS_FOR_ANOTHER):
            for replica in replicas:
                frozen.check(replica)
                run_status.check_data(replica, environment.fingerprint)
            with WandbWriter(outages, seconds_when_left=seconds_for_wandb) as wandb:
                return _train(replicas, learner, environment, wandb, report, should_stop)
    except torch.OutOfMemoryError as error:
        if len(replicas) == 1:
            raise UserError(
                "one run alone does not fit into the GPU's memory; use a smaller network or batch, "
                f"or device=cpu ({str(error).splitlines()[0]})"
            ) from error
    # Past the handler: the error held on to all that lay on the device.
    return fitting.in_halves(
        replicas, lambda half, say: train(half, say, should_stop, outages, seconds_for_wandb), report
    )


def _train(
    replicas: Sequence[Replica],
    learner: Learner,
    environment: Environment,
    wandb: WandbWriter,
    report: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    config = replicas[0].config
    population = building.population(replicas, learner, environment)
    recorders = [Recorder(replica, len(replicas), wandb, environment.fingerprint) for replica in replicas]
    pause = Pause(population, recorders, config["engine"]["checkpoint_minutes"], report, should_stop)
    try:
        _run_tasks(population, recorders, MetricsConfig(**config["metrics"]), pause)
    except (Interrupted, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
        for recorder in recorders:
            recorder.fail(reason)
        raise
    finally:
        population.release()
    return [Outcome(r.status, r.score, r.score_name) for r in recorders]


def _run_tasks(
    population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig, pause: Pause
) -> None:
    environment = population.environment
    first_task, first_step = resume(population, recorders)
    next_task = first_task
    pause.begin(first_task, first_step)
    for task in range(first_task, environment.num_tasks):
        if all(recorder.status == "diverged" for recorder in recorders):
            break
        steps = environment.steps(task)
        fraction_steps = {fraction: max(1, round(fraction * steps)) for fraction in wanted.task_fractions}
        stops = sorted({*fraction_steps.values(), steps})
        with pause.starting() if task == first_task else nullcontext():
            if task == first_task and first_step > 0:
                population.enter_task(task, first_step)
            else:
                population.start_task(task)

        while population.step_in_task < steps:
            stop = next(stop for stop in stops if stop > population.step_in_task)
            population.advance(min(population.chunk_steps, stop - population.step_in_task))
            due = [fraction for fraction, at in fraction_steps.items() if at == population.step_in_task]
            if due:
                columns = measuring.after_fractions(population, due)
                for recorder, of_replica in zip(recorders, columns, strict=True):
                    recorder.add_columns(of_replica)
            if population.step_in_task < steps:
                pause(task, population.step_in_task)

        _record_task(population, recorders, wanted)
        population.end_task()
        next_task = task + 1
        pause(next_task, 0)
    pause.end(next_task)
    for recorder in recorders:
        recorder.finish()


def _record_task(population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig) -> None:
    """Hand each replica its row of the task that has just ended."""
    diverged_at, rows = population.diverged_at(), measuring.after_task(population, wanted)
    past = measuring.on_past_tasks(population) if wanted.forgetting else None
    tested = f"test_{population.environment.loss.measure}"
    for r, recorder in enumerate(recorders):
        # What the last step destroyed has a finite loss before it, and no measure after it.
        if diverged_at[r] or not math.isfinite(float(rows[r][tested])):
            recorder.mark_diverged(diverged_at[r] or int(rows[r]["step"]))
            continue
        recorder.add_task(rows[r])
        if past is not None:
            recorder.add_accuracies([*past[r], float(rows[r][tested])])
