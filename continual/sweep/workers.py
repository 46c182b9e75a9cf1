"""Populations in worker processes: one population a process at a time, one process a core or a GPU."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from continual.config import Replica
from continual.tracking.progress import Snapshot
from continual.training import Outcome

_ATTEMPTS = 2


@dataclass(frozen=True)
class Failure:
    """A population that could not be trained, and why."""

    reason: str


def run(
    populations: Sequence[Sequence[Replica]],
    workers: int,
    report: Callable[[int, Snapshot], None],
    gpus: Sequence[str] = (),
) -> list[list[Outcome] | Failure]:
    """Train each population in one of `workers` processes; the results in the order of the populations.

    With `gpus`, worker i sees only gpus[i]. An error fails its own population; a worker that dies takes only
    its population with it, which is tried once more and goes on from its checkpoints.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(range(len(populations)))
    attempts = [0] * len(populations)
    results: list[list[Outcome] | Failure | None] = [None] * len(populations)
    pool = [_Worker(context, gpus[i] if gpus else None) for i in range(workers)]
    try:
        while any(result is None for result in results):
            for worker in pool:
                if worker.busy_with is None and waiting:
                    worker.give(waiting[0], populations[waiting[0]])
                    attempts[waiting.pop(0)] += 1
            for worker in _with_news(pool):
                index = worker.busy_with
                assert index is not None
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    code = worker.restart()
                    if attempts[index] < _ATTEMPTS:
                        waiting.insert(0, index)
                    else:
                        results[index] = Failure(f"its process died twice (exit code {code})")
                    continue
                if kind == "report":
                    report(index, content)
                else:
                    results[index] = Failure(content) if kind == "error" else content
                    worker.busy_with = None
    finally:
        for worker in pool:
            worker.stop()
    return [result for result in results if result is not None]


class _Worker:
    """A process, the line to it, and the population that it is at."""

    def __init__(self, context: Any, gpu: str | None) -> None:
        self._context, self._gpu = context, gpu
        self.busy_with: int | None = None
        self.connection: Connection
        self._process: BaseProcess
        self._start()

    def give(self, index: int, population: Sequence[Replica]) -> None:
        self.busy_with = index
        self.connection.send(list(population))

    def restart(self) -> int | None:
        """Replace the dead process; returns its exit code."""
        self._process.join()
        code = self._process.exitcode
        self.connection.close()
        self.busy_with = None
        self._start()
        return code

    def stop(self) -> None:
        self.connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._gpu), daemon=True)
        self._process.start()
        theirs.close()


def _with_news(pool: Sequence[_Worker]) -> list[_Worker]:
    by_connection = {w.connection: w for w in pool if w.busy_with is not None}
    return [by_connection[c] for c in wait(list(by_connection)) if isinstance(c, Connection)]


def _serve(connection: Connection, gpu: str | None) -> None:
    """A worker's life: train what comes down the line until it is closed."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA is first used
    import traceback

    from continual.errors import UserError
    from continual.training import train

    while True:
        try:
            population = connection.recv()
        except EOFError:
            return
        try:
            outcomes = train(population, lambda snapshot: connection.send(("report", snapshot)))
        except UserError as error:
            connection.send(("error", str(error)))
        except Exception:
            connection.send(("error", traceback.format_exc()))
        else:
            connection.send(("done", outcomes))
