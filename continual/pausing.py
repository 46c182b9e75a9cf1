"""What is done between two chunks of steps: report, write checkpoints, stop if asked to."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from continual.tracking.progress import Snapshot

if TYPE_CHECKING:
    from continual.population import Population
    from continual.tracking.recorder import Recorder


class Interrupted(Exception):
    """Training was asked to stop; every replica's checkpoint is written, unless that was in `starting`."""


class Pause:
    """Called at each point to resume from. `report` hears about once a second how far the population is."""

    def __init__(
        self,
        population: "Population",
        recorders: "Sequence[Recorder]",
        checkpoint_minutes: float,
        report: Callable[[Snapshot], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._population, self._recorders = population, recorders
        self._between_checkpoints = 60 * checkpoint_minutes
        self._report, self._should_stop = report, should_stop
        self._last_report = self._last_checkpoint = time.monotonic()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of the first task, in which steps are compiled to native code.

        Interrupted, and nothing is written, if that failed as it is to stop: a signal that a whole group of
        processes gets ends the compiler, too. What follows from that is neither a run's error nor the way in
        which its steps are done from then on.
        """
        try:
            yield
        except Exception as error:
            if self._should_stop():
                raise Interrupted from error
            raise
        if self._population.lacks_native and self._should_stop():
            raise Interrupted

    def begin(self, task: int, step: int) -> None:
        """Before the first step, at the point from which the population starts or resumes."""
        self._report(self._snapshot(task, step))
        self._last_report = self._last_checkpoint = time.monotonic()

    def __call__(self, task: int, step: int) -> None:
        """After a chunk, at the point that follows it. Raises Interrupted when `should_stop` says so."""
        now = time.monotonic()
        if now - self._last_report >= 1:
            self._report(self._snapshot(task, step))
            self._last_report = now
        stopping = self._should_stop()
        if stopping or now - self._last_checkpoint >= self._between_checkpoints:
            self._checkpoint(task, step)
            self._last_checkpoint = time.monotonic()
        if stopping:
            raise Interrupted

    def end(self, task: int) -> None:
        """After the last task that was trained; `task` is the number of the one that would follow it."""
        # Nothing is left to do, even if all replicas diverged before the last task.
        self._report(self._snapshot(self._population.environment.num_tasks, 0))
        self._checkpoint(task, 0)

    def _checkpoint(self, task: int, step: int) -> None:
        for r, recorder in enumerate(self._recorders):
            state, native = self._population.replica_state(r), self._population.is_native
            recorder.save_checkpoint((task, step), state, native)

    def _snapshot(self, task: int, step: int) -> Snapshot:
        environment = self._population.environment
        measures = self._population.online_measure() if self._population.step_in_task else []
        return Snapshot(
            tasks_done=task,
            num_tasks=environment.num_tasks,
            steps_done=environment.first_step(task) + step,
            num_steps=environment.first_step(environment.num_tasks),
            replicas=self._population.size,
            measure=environment.loss.measure,
            online=sum(measures) / len(measures) if measures else None,
        )
