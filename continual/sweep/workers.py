"""Populations in worker processes: one population a process at a time, one process a core or a GPU.

A worker is a Python of its own that imports this module and nothing of the program that started it: that may
be a notebook, a script on standard input, or one that would train again if it were imported.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from continual import building
from continual.config import Replica
from continual.pausing import Interrupted
from continual.sweep.leaving import leave
from continual.tracking.progress import Snapshot
from continual.tracking.run_status import Outcome

log = logging.getLogger(__name__)

_ATTEMPTS = 2
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 600  # of a chunk of steps and a population's checkpoints; a second Ctrl-C ends it
_SECONDS_TO_LEAVE = 5  # for a process that has nothing left to do; it takes a tenth of one


@dataclass(frozen=True)
class Failure:
    """A population that could not be trained, and why."""

    reason: str


@dataclass(frozen=True)
class _Surroundings:
    """What a worker takes over from the process that starts it."""

    module_path: list[str]
    gpu: str | None
    code: Mapping[str, Any] | None


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
    what the runs were submitted with (`continual.provenance`). Several workers share each dataset's memory.
    """
    waiting = list(range(len(populations)))
    attempts = [0] * len(populations)
    results: list[list[Outcome] | Failure | None] = [None] * len(populations)
    pool = [_Worker(gpus[i % len(gpus)] if gpus else None, code) for i in range(workers)]
    datasets = _Datasets(shared=workers > 1)
    try:
        while any(result is None for result in results):
            for worker in pool:
                if worker.busy_with is None and waiting:
                    population = populations[waiting[0]]
                    worker.give(waiting[0], population, datasets.of(population[0].config))
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
        datasets.close()
        idle_until = time.monotonic() + _SECONDS_TO_LEAVE
        killed = [worker for worker in pool if not worker.join(idle_until)]
        if killed:
            log.warning("%d of the processes were killed before their checkpoints were written.", len(killed))
    return [result for result in results if result is not None]


class _Datasets:
    """The datasets that were put into shared memory, each once."""

    def __init__(self, shared: bool) -> None:
        self._is_on = shared
        self._by_node: dict[str, building.SharedData | None] = {}

    def of(self, config: Mapping[str, Any]) -> building.SharedData | None:
        if not self._is_on or "dataset" not in config["env"]:
            return None
        node = str(config["env"]["dataset"])
        if node not in self._by_node:
            self._by_node[node] = building.share_dataset(config)
        return self._by_node[node]

    def close(self) -> None:
        for data in filter(None, self._by_node.values()):
            data.dataset.close()


class _Worker:
    """A process, the line to it, and the population that it is at."""

    def __init__(self, gpu: str | None, code: Mapping[str, Any] | None) -> None:
        self._surroundings = _Surroundings([path for path in sys.path if path], gpu, code)
        self.busy_with: int | None = None
        self.connection: Connection
        self._process: subprocess.Popen[bytes]
        self._start()

    def give(self, index: int, population: Sequence[Replica], dataset: building.SharedData | None) -> None:
        try:
            self.connection.send((list(population), dataset))
        except OSError:  # it died while it had nothing to do
            self.restart()
            self.connection.send((list(population), dataset))
        self.busy_with = index

    def restart(self) -> int:
        """Replace the dead process; returns its exit code."""
        code = self._process.wait()
        self.connection.close()
        self.busy_with = None
        self._start()
        return code

    def join(self, idle_until: float) -> bool:
        """Wait until it has ended, after its connection was closed; if it was idle, until this time.

        Returns whether it was given the time that it needs: a busy one is killed after 10 minutes.
        """
        idle_for = max(0.0, idle_until - time.monotonic())
        try:
            self._process.wait(timeout=idle_for if self.busy_with is None else _SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return self.busy_with is None
        return True

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        package = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), package],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        with contextlib.suppress(OSError):  # it has died already, which is seen when it is given something
            self.connection.send(self._surroundings)


# What a worker runs: where this package is comes first, the rest of the path down the line.
_PROGRAM = """import sys
sys.path.insert(0, sys.argv[2])
from continual.sweep.workers import serve
serve(int(sys.argv[1]))
"""


def _with_news(pool: Sequence[_Worker]) -> list[_Worker]:
    by_connection = {w.connection: w for w in pool if w.busy_with is not None}
    ready = wait(list(by_connection), timeout=_SECONDS_BETWEEN_LOOKS)
    return [by_connection[c] for c in ready if isinstance(c, Connection)]


def serve(line: int) -> None:
    """A worker's life: train what comes down the line, a file descriptor, until it is closed."""
    # Signals go to the whole group of processes, but only the first of them heeds them and closes the line;
    # when it is killed, the line is closed too.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    connection = Connection(line)
    try:
        surroundings: _Surroundings = connection.recv()
        sys.path[:] = surroundings.module_path
        if surroundings.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = surroundings.gpu  # before CUDA is first used
        _train_all(connection, surroundings.code)
    except EOFError:
        pass
    except Exception:
        traceback.print_exc()
        leave(1)
    leave(0)


def _train_all(connection: Connection, code: Mapping[str, Any] | None) -> None:
    """Train what comes down the line until it is closed, which in the middle of a population asks to stop."""
    from continual.errors import UserError
    from continual.provenance import submitted
    from continual.tracking.wandb_run import Outages
    from continual.training import train

    if code is not None:
        submitted.expect(code, quiet=True)

    def say(kind: Literal["report", "error", "done"], content: object) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more
            connection.send((kind, content))

    outages = Outages()
    while True:
        population, dataset = connection.recv()
        if dataset is not None:
            building.use_shared(dataset)
        try:
            outcomes = train(population, lambda snapshot: say("report", snapshot), connection.poll, outages)
        except Interrupted:
            return
        except UserError as error:
            say("error", str(error))
        except Exception:
            say("error", traceback.format_exc())
        else:
            say("done", outcomes)
