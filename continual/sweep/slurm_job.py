"""What runs inside a SLURM job: one population, until it is done or the job is to make room."""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from submitit import JobEnvironment
from submitit.helpers import Checkpointable

from continual import training
from continual.config import Replica
from continual.errors import UserError
from continual.provenance import submitted
from continual.sweep.others import record_unless_held
from continual.sweep.packing import by_position
from continual.sweep.slurm_queue import is_being_cancelled
from continual.sweep.stopping import StopSignals
from continual.tracking import run_status
from continual.tracking.lock import InUseError
from continual.tracking.wandb_run import Outages

log = logging.getLogger(__name__)

# submitit sends its own signal before the time limit, and SLURM the same when it preempts a job.
_MAKE_ROOM = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
# Longer than clusters usually let pass between SIGTERM and SIGKILL.
_SECONDS_TO_BE_KILLED = 120
_SECONDS_FOR_ANOTHER = 300
# Of those that a job has between its signal and its end (signal_seconds, 90): its checkpoints come first, and
# it has to put itself back into the queue. The job's next life writes what W&B lacks.
_SECONDS_FOR_WANDB = 10


class PopulationJob(Checkpointable):
    """A callable for submitit that trains the unfinished runs of a population and can be queued again.

    What starts again is the same callable, as `Checkpointable` has it: where a run stands is in its folder.
    Signals only ask training to stop, which it does between two chunks of steps, with checkpoints written.
    Then submitit's own handler puts the job back into the queue; after SIGTERM, which SLURM sends before it
    kills a job, nothing is left to do but to wait for that. Nor is a job put back that was cancelled after
    it was asked to make room: SLURM would run it again.
    """

    def __init__(self, population: Sequence[Replica], code: Mapping[str, Any]) -> None:
        self.population = list(population)
        self.code = dict(code)

    def __call__(self) -> None:
        logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", stream=sys.stdout)
        submitted.expect(self.code)
        with StopSignals([_MAKE_ROOM, signal.SIGTERM]) as stop:
            while True:
                try:
                    self._train(stop)
                    break
                except training.Interrupted:
                    if stop.came == _MAKE_ROOM and not is_being_cancelled(JobEnvironment().job_id):
                        log.info("asked to make room: the checkpoints are written.")
                        requeue = stop.handler_before(_MAKE_ROOM)
                        requeue(_MAKE_ROOM, None)  # ends the process
                    log.info("asked to end: the checkpoints are written.")
                    _wait_to_be_killed(stop)
                    stop.came = None

        # A signal that comes now finds nothing to save; while Python ends, it would make a failure of it.
        signal.signal(_MAKE_ROOM, signal.SIG_IGN)

    def _train(self, stop: StopSignals) -> None:
        waited_until = time.monotonic() + _SECONDS_FOR_ANOTHER
        outages = Outages()
        while True:
            unfinished = [run for run in self.population if not run_status.has_ended(run)]
            try:
                for part in by_position(unfinished):
                    _train_or_say_why(part, stop, outages)
                return
            except InUseError as error:
                # A job whose node was given up may live on there for a while.
                if time.monotonic() > waited_until:
                    raise
                log.warning("%s", error)
                time.sleep(5)


def _train_or_say_why(part: list[Replica], stop: StopSignals, outages: Outages) -> None:
    """Train runs that are at the same point; an error goes into their folders and stops no other run."""
    try:
        training.train(part, should_stop=stop, outages=outages, seconds_for_wandb=_SECONDS_FOR_WANDB)
    except (training.Interrupted, InUseError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
        log.error("%s", reason)
        record_unless_held(part, reason)


def _wait_to_be_killed(stop: StopSignals) -> None:
    until = time.monotonic() + _SECONDS_TO_BE_KILLED
    while time.monotonic() < until:
        time.sleep(0.5)
