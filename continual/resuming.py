"""From checkpoints back to a population: the latest point that all of its replicas can resume from."""

import logging
from collections.abc import Sequence

from continual.population import Population
from continual.tracking.recorder import Checkpoint, Recorder

log = logging.getLogger(__name__)


def resume(population: Population, recorders: Sequence[Recorder]) -> tuple[int, int]:
    """Put the replicas back to the latest point that all of them have a checkpoint of.

    Returns the task and the step in it from which to continue; (0, 0) is a start from scratch, and
    (num_tasks, 0) means that nothing is left to train.
    """
    checkpoints = [_that_fit(population, recorder.checkpoints()) for recorder in recorders]
    common = set.intersection(*({c.position for c in of} for of in checkpoints))
    if not common:
        if any(recorder.has_checkpoints for recorder in recorders):
            log.warning("no checkpoint can be used: starting from the beginning")
        for recorder in recorders:
            recorder.start(None)
        return 0, 0
    position = max(common)
    chosen = [next(c for c in of if c.position == position) for of in checkpoints]
    # What was rounded in one way before is rounded in the same way after.
    population.keep_native({checkpoint.native for checkpoint in chosen})
    for r, (recorder, checkpoint) in enumerate(zip(recorders, chosen, strict=True)):
        population.restore(r, checkpoint.state)
        recorder.start(checkpoint)
    log.info("resuming from task %d, step %d", *position)
    return position


def _that_fit(population: Population, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those of a replica's checkpoints that this population can resume from; the others are named."""
    environment = population.environment
    found = []
    for checkpoint in checkpoints:
        task, step = checkpoint.position
        steps = environment.steps(task) if task < environment.num_tasks else 1
        if task <= environment.num_tasks and step < steps and population.fits(checkpoint.state):
            found.append(checkpoint)
        else:
            log.warning(
                "%s is of another network, of more tasks or of another version: it is passed over.",
                checkpoint.file,
            )
    return found
