"""An experiment, from top to bottom: tasks, chunks of steps, measures, and what is written when.

`train` is the one entry point for every way of running: a single run is a population of one.
"""

import logging
import traceback
from collections.abc import Callable, Sequence

import torch

from continual import building, fitting, measuring
from continual.config import MetricsConfig, Replica, check_here
from continual.envs.environment import Environment
from continual.errors import UserError
from continual.learner import Learner
from continual.pausing import Interrupted, Pause
from continual.population import Population
from continual.tracking.lock import lock_all
from continual.tracking.progress import Snapshot
from continual.tracking.recorder import Recorder
from continual.tracking.run_status import Outcome
from continual.tracking.wandb_run import WandbWriter

__all__ = ["Interrupted", "Outcome", "train"]

log = logging.getLogger(__name__)

# How long a run's folder may be another process's: a worker whose sweep was killed leaves after its chunk.
_SECONDS_FOR_ANOTHER = 10


def train(
    replicas: Sequence[Replica],
    report: Callable[[Snapshot], None] = lambda snapshot: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train replicas of one structure as one population, and write each one's results to its folder.

    Resumes from the replicas' checkpoints where there are any. `report` hears about once a second how far
    the population is; when `should_stop` says so, checkpoints are written and `Interrupted` is raised.
    A population that does not fit into the device's memory is trained as two halves, one after the other.
    Raises UserError before anything is written if the config or its data will not do, or if another
    process trains one of the runs.
    """
    check_here(replicas[0].config)
    learner, environment = building.prepare(replicas[0].config)
    try:
        with lock_all((replica.folder for replica in replicas), _SECONDS_FOR_ANOTHER):
            return _train(replicas, learner, environment, report, should_stop)
    except torch.OutOfMemoryError as error:
        if len(replicas) == 1:
            raise UserError(
                "one run alone does not fit into the GPU's memory; use a smaller network or batch, "
                f"or device=cpu ({str(error).splitlines()[0]})"
            ) from error
    # Past the handler: the error held on to all that lay on the device.
    return fitting.in_halves(replicas, lambda half, say: train(half, say, should_stop), report)


def _train(
    replicas: Sequence[Replica],
    learner: Learner,
    environment: Environment,
    report: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    config = replicas[0].config
    population = building.population(replicas, learner, environment)
    wandb = WandbWriter()
    recorders = [Recorder(replica, len(replicas), wandb) for replica in replicas]
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
        wandb.close()
    return [Outcome(r.status, r.total_average_online_accuracy) for r in recorders]


def _run_tasks(
    population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig, pause: Pause
) -> None:
    environment = population.environment
    steps = environment.steps_per_task
    fractions = {max(1, round(fraction * steps)): fraction for fraction in wanted.task_fractions}
    stops = sorted({*fractions, steps})

    first_task, first_step = _resume(population, recorders)
    next_task = first_task
    pause.begin(first_task, first_step)
    for task in range(first_task, environment.num_tasks):
        if task == first_task and first_step > 0:
            population.enter_task(task, first_step)
        else:
            population.start_task(task)

        while population.step_in_task < steps:
            stop = next(stop for stop in stops if stop > population.step_in_task)
            population.advance(min(population.chunk_steps, stop - population.step_in_task))
            if population.step_in_task in fractions:
                columns = measuring.after_fraction(population, fractions[population.step_in_task])
                for recorder, of_replica in zip(recorders, columns, strict=True):
                    recorder.add_columns(of_replica)
            if population.step_in_task < steps:
                pause(task, population.step_in_task)

        _record_task(population, recorders, wanted)
        population.end_task()
        next_task = task + 1
        if all(recorder.status == "diverged" for recorder in recorders):
            break
        pause(next_task, 0)
    pause.end(next_task)
    for recorder in recorders:
        recorder.finish()


def _record_task(population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig) -> None:
    """Hand each replica its row of the task that has just ended."""
    diverged_at, rows = population.diverged_at(), measuring.after_task(population, wanted)
    past = measuring.on_past_tasks(population) if wanted.forgetting else None
    for r, recorder in enumerate(recorders):
        if diverged_at[r]:
            recorder.mark_diverged(diverged_at[r])
            continue
        recorder.add_task(rows[r], population.environment.is_scored(population.task))
        if past is not None:
            recorder.add_accuracies([*past[r], float(rows[r]["test_accuracy"])])


def _resume(population: Population, recorders: Sequence[Recorder]) -> tuple[int, int]:
    """Put the replicas back to the latest point that all of them have a checkpoint of.

    Returns the task and the step in it from which to continue; (0, 0) is a start from scratch.
    """
    checkpoints = [recorder.checkpoints() for recorder in recorders]
    common = set.intersection(*({c.position for c in of} for of in checkpoints))
    if not common:
        for recorder in recorders:
            recorder.start(None)
        return 0, 0
    position = max(common)
    for r, (recorder, of) in enumerate(zip(recorders, checkpoints, strict=True)):
        chosen = next(c for c in of if c.position == position)
        population.restore(r, chosen.state)
        recorder.start(chosen)
    log.info("going on from task %d, step %d", *position)
    return position
