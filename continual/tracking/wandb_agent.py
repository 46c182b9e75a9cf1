"""The run that the agent of a W&B sweep asked for: the mean over the runs that this call trains.

`wandb agent` gives each call one run, a population has many. They keep runs of their own; the agent's run
has their mean score so far at each task, `performance/score`: the sweep's metric, by which it chooses the
next values and may stop a call early.
"""

import contextlib
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from continual.config import Replica
from continual.errors import UserError
from continual.tracking.recorded import RecordedRun
from continual.tracking.score import RunningScore
from continual.tracking.wandb_environment import asked_by_an_agent
from continual.tracking.wandb_run import WandbRun, WandbWriter

log = logging.getLogger(__name__)

_WORST = 0.0  # what a diverged run counts as where more is better, so that the sweep keeps away from there
_SECONDS_BETWEEN_LOOKS = 5.0


@contextlib.contextmanager
def agents_run(runs: Sequence[Replica]) -> Iterator[None]:
    """Keep the agent's run while these runs are trained, wherever that is; without an agent, do nothing."""
    if not asked_by_an_agent() or all(run.config["wandb"]["mode"] == "disabled" for run in runs):
        yield
        return
    follower = _Follower(runs)
    follower.start()
    try:
        yield
        follower.ended = True
    finally:
        follower.stop()


class _Follower(threading.Thread):
    """Looks at the runs' folders now and then, and logs a task once all of them are past it."""

    def __init__(self, runs: Sequence[Replica]) -> None:
        super().__init__(daemon=True)
        self.ended = False
        self._runs = runs
        self._logged = 0
        self._stopping = threading.Event()
        self._writer = WandbWriter(agent=True)
        self._run = WandbRun.of_agent(runs)
        self._writer.start(self._run, resumed=True)

    def run(self) -> None:
        """Look, until `stop`."""
        while not self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def stop(self) -> None:
        """Look once more, and finish the run."""
        self._stopping.set()
        self.join()
        self._look()
        if self.ended:
            self._writer.end(self._run, {"status": "completed", "runs": len(self._runs)})
        self._writer.close()

    def _look(self) -> None:
        scores = [self._scores(run) for run in self._runs]
        for task in range(self._logged, min(map(len, scores))):
            at_task = [of_run[task] for of_run in scores]
            known = [score for score in at_task if score is not None]
            # Where less is better there is no worst: with a diverged run, the call has no more scores.
            whole = len(known) == len(at_task)
            row: dict[str, Any] = {"task": task, "score": math.fsum(known) / len(known) if whole else None}
            self._writer.log(self._run, row)
            self._logged = task + 1

    def _scores(self, run: Replica) -> Sequence[float | None]:
        """The score so far after each task of a run; a diverged one has the worst, to its last task."""
        try:
            recorded = RecordedRun.read(run)
        except UserError:  # unreadable for now
            return []
        if recorded.status == "diverged":
            worst = _WORST if RunningScore(run.config).higher_is_better else None
            return [worst] * int(run.config["env"]["num_tasks"])
        return recorded.scores
