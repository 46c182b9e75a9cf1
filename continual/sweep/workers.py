"""Populations in worker processes: one population a process at a time, one process a core or a GPU."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from continual.config import Replica
from continual.pausing import Interrupted
from continual.sweep.leaving import leave
from continual.tracking.progress import Snapshot
from continual.tracking.run_status import Outcome

_ATTEMPTS = 2
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 60  # of a chunk of steps and a population's checkpoints
_SECONDS_TO_LEAVE = 5  # for a process that has nothing left to do; it takes a tenth of one


@dataclass(frozen=True)
class Failure:
    """A population that could not be trained, and why."""

    reason: str


def run(
    populations: Sequence[Sequence[Replica]],
    workers: int,
    report: Callable[[int, Snapshot], None],
    should_stop: Callable[[], bool] = lambda: False,
    code: Mapping[str, Any] | None = None,
    gpus: Sequence[str] = (),
) -> list[list[Outcome] | Failure]:
    """Train each population in one of `workers` processes; the results in the order of the populations.

    An error fails its own population; a worker that dies takes only its population with it, which is tried
    once more and goes on from its checkpoints. When `should_stop` says so, the workers write checkpoints and
    end, and Interrupted is raised. With `gpus`, each worker sees one of them, in turns; `code` is
    what the runs were submitted with (`continual.provenance`).
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(range(len(populations)))
    attempts = [0] * len(populations)
    results: list[list[Outcome] | Failure | None] = [None] * len(populations)
    pool = [_Worker(context, gpus[i % len(gpus)] if gpus else None, code) for i in range(workers)]
    try:
        while any(result is None for result in results):
            for worker in pool:
                if worker.busy_with is None and waiting:
                    worker.give(waiting[0], populations[waiting[0]])
                    attempts[waiting.pop(0)] += 1
            if should_stop():
                raise Interrupted
            for worker in _with_news(pool):
                index = worker.busy_with
                assert index is not None
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    exit_code = worker.restart()
                    if attempts[index] < _ATTEMPTS:
                        waiting.insert(0, index)
                    else:
                        results[index] = Failure(f"its process died twice (exit code {exit_code}).")
                    continue
                if kind == "report":
                    report(index, content)
                else:
                    results[index] = Failure(content) if kind == "error" else content
                    worker.busy_with = None
    finally:
        for worker in pool:
            worker.connection.close()
        idle_until = time.monotonic() + _SECONDS_TO_LEAVE
        for worker in pool:
            worker.join(idle_until)
    return [result for result in results if result is not None]


class _Worker:
    """A process, the line to it, and the population that it is at."""

    def __init__(self, context: Any, gpu: str | None, code: Mapping[str, Any] | None) -> None:
        self._context, self._gpu, self._code = context, gpu, code
        self.busy_with: int | None = None
        self.connection: Connection
        self._process: BaseProcess
        self._start()

    def give(self, index: int, population: Sequence[Replica]) -> None:
        try:
            self.connection.send(list(population))
        except OSError:  # it died while it had nothing to do
            self.restart()
            self.connection.send(list(population))
        self.busy_with = index

    def restart(self) -> int | None:
        """Replace the dead process; returns its exit code."""
        self._process.join()
        code = self._process.exitcode
        self.connection.close()
        self.busy_with = None
        self._start()
        return code

    def join(self, idle_until: float) -> None:
        """Wait until it has ended, after its connection was closed; if it was idle, until this time."""
        idle_for = max(0.0, idle_until - time.monotonic())
        self._process.join(timeout=idle_for if self.busy_with is None else _SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._gpu, self._code), daemon=True
        )
        self._process.start()
        theirs.close()


def _with_news(pool: Sequence[_Worker]) -> list[_Worker]:
    by_connection = {w.connection: w for w in pool if w.busy_with is not None}
    ready = wait(list(by_connection), timeout=_SECONDS_BETWEEN_LOOKS)
    return [by_connection[c] for c in ready if isinstance(c, Connection)]


def _serve(connection: Connection, gpu: str | None, code: Mapping[str, Any] | None) -> None:
    """A worker's life: train what comes down the line until it is closed."""
    try:
        _train_all(connection, gpu, code)
    except Exception:
        traceback.print_exc()
        leave(1)
    leave(0)


def _train_all(connection: Connection, gpu: str | None, code: Mapping[str, Any] | None) -> None:
    """Train what comes down the line until it is closed.

    Signals go to the whole group of processes, but only the first of them heeds them and closes the line;
    when it is killed, the line is closed too. In the middle of a population, that asks it to stop.
    """
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA is first used
    from continual.errors import UserError
    from continual.provenance import submitted
    from continual.training import train

    if code is not None:
        submitted.expect(code, quiet=True)

    def say(kind: str, content: object) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more
            connection.send((kind, content))

    while True:
        try:
            population = connection.recv()
        except EOFError:
            return
        try:
            outcomes = train(
                population, lambda snapshot: say("report", snapshot), should_stop=connection.poll
            )
        except Interrupted:
            return
        except UserError as error:
            say("error", str(error))
        except Exception:
            say("error", traceback.format_exc())
        else:
            say("done", outcomes)
