"""Contenders: loops in processes of their own, timed in short windows that take turns.

A machine's speed changes from minute to minute (other users, heat), so two loops are compared by pairs of
windows next to one another, never by numbers taken apart.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

import torch

from benchmarking.c_loop import CLoop
from benchmarking.jax_loop import JaxLoop
from benchmarking.plain_loop import PlainLoop
from continual import building
from continual.config import Replica
from continual.machine import device
from continual.population import Population

# A window looks at the clock about so often.
_SECONDS_AT_A_TIME = 0.05
_CALLS_TO_CAPTURE = 25  # on a GPU: the first ones are compiled, captured, and then replayed ten at a time

# population: this program; plain: the loop that a PyTorch script has; compiled: the same under torch.compile;
# c: a program in C, for batches of one image; jax: vmap over replicas, scan over steps.
Kind: TypeAlias = Literal["population", "plain", "compiled", "c", "jax"]

# wall: the time that passes; core: only the time for which the process had a core, other programs or not.
Clock: TypeAlias = Literal["wall", "core"]


class Loop(Protocol):
    """What is timed; `run` takes multiples of `at_a_time` steps."""

    at_a_time: int

    def run(self, steps: int) -> None:
        """Do so many steps of each of its replicas."""


class PopulationLoop:
    """A population in the middle of its first task."""

    at_a_time = 1

    def __init__(self, population: Population) -> None:
        self._population = population
        population.start_task(0)

    def run(self, steps: int) -> None:
        """Do so many steps, in chunks as training does."""
        for done in range(0, steps, self._population.chunk_steps):
            self._population.advance(min(self._population.chunk_steps, steps - done))


@dataclass(frozen=True)
class Window:
    """What a loop did in a window: `steps` of each of `replicas`, in `seconds` of the clock chosen.

    `core_share` is the share of the time for which it had a core; `peak_memory` in bytes, 0 on a CPU.
    """

    steps: int
    replicas: int
    seconds: float
    core_share: float
    peak_memory: int


@dataclass(frozen=True)
class Rate:
    """The windows of processes that ran at the same time, together."""

    windows: tuple[Window, ...]

    @property
    def steps_per_second(self) -> float:
        """Of a process, on average."""
        return sum(w.steps / w.seconds for w in self.windows) / len(self.windows)

    @property
    def replica_steps_per_second(self) -> float:
        """Of all processes together."""
        return sum(w.replicas * w.steps / w.seconds for w in self.windows)

    @property
    def processes(self) -> int:
        """How many ran."""
        return len(self.windows)

    @property
    def core_share(self) -> float:
        """The least share of its core that any of the processes got."""
        return min(w.core_share for w in self.windows)

    @property
    def peak_memory(self) -> int:
        """Bytes on the GPU at most, of all processes together."""
        return sum(w.peak_memory for w in self.windows)


class Contender:
    """Loops of one kind, each in a process of its own, that run at the same time.

    On a CPU each process has a core to itself, as far as there are so many, unless it has several threads.
    """

    def __init__(
        self, populations: Sequence[Sequence[Replica]], kind: Kind = "population", clock: Clock = "wall"
    ) -> None:
        """Starts the processes one by one, so that the second finds the first one's compiled code."""
        self._processes: list[ProcessPoolExecutor] = []
        try:
            for number, replicas in enumerate(populations):
                self._processes.append(process())
                self._processes[-1].submit(_prepare, number, list(replicas), kind, clock).result()
        except BaseException:
            self.close()
            raise

    def rate(self, seconds: float) -> Rate:
        """What it does in a window of about so many seconds."""
        futures = [each.submit(_time, seconds) for each in self._processes]
        return Rate(tuple(future.result() for future in futures))

    def close(self) -> None:
        """End its processes."""
        for each in self._processes:
            each.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def compare(
    reference: Contender, contender: Contender, pairs: int, seconds: float
) -> list[tuple[Rate, Rate]]:
    """Windows of both, alternating."""
    return [(reference.rate(seconds), contender.rate(seconds)) for _ in range(pairs)]


def loop_of(replicas: Sequence[Replica], kind: Kind = "population") -> Loop:
    """The loop of these replicas, ready to run; a plain loop and a program in C have the first alone."""
    config = replicas[0].config
    if kind == "jax":
        return JaxLoop(replicas)
    learner, environment = building.prepare(config)
    if kind == "population":
        # The constructor that training uses, so that whatever speeds up runs is measured.
        return PopulationLoop(building.population(replicas, learner, environment))
    torch.set_num_threads(config["engine"]["threads"])
    torch.set_flush_denormal(True)
    if kind == "c":
        return CLoop(learner, environment, config["seed"])
    where = device(config["device"])
    return PlainLoop(learner, environment, config["seed"], where, compiled=kind == "compiled")


def time_window(
    loop: Loop, replicas: int, where: torch.device, at_a_time: int, seconds: float, clock: Clock = "wall"
) -> Window:
    """Run the loop, `at_a_time` steps between two looks at the clock, until `seconds` are over."""
    steps = 0
    wait_for(where)
    start, core_start = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds or steps == 0:
        loop.run(at_a_time)
        wait_for(where)
        steps += at_a_time
    core = time.process_time() - core_start
    measured = core if clock == "core" else elapsed
    peak = torch.cuda.max_memory_allocated(where) if where.type == "cuda" else 0
    return Window(steps, replicas, measured, core / elapsed, peak)


def wait_for(where: torch.device) -> None:
    """Until the device has done all that it was given."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def process() -> ProcessPoolExecutor:
    """A process of its own, forked off one that has imported what takes seconds to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    return ProcessPoolExecutor(1, mp_context=context)


_timed: list[tuple[Loop, int, torch.device, int, Clock]] = []  # what `_prepare` made in this process


def pin(number: int) -> None:
    """Leave this process one core, of those that it may use the one with this number, or so."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {own[number % len(own)]})


def _prepare(number: int, replicas: list[Replica], kind: Kind, clock: Clock) -> None:
    """In a contender's process: make the loop, warm it up, and find how many steps to do at a time."""
    where = device(replicas[0].config["device"])
    if where.type == "cpu" and replicas[0].config["engine"]["threads"] == 1:
        pin(number)
    loop, count = loop_of(replicas, kind), len(replicas) if kind in ("population", "jax") else 1
    loop.run(loop.at_a_time * (1 if where.type == "cpu" else _CALLS_TO_CAPTURE))  # compiles
    trial = time_window(loop, count, where, loop.at_a_time, _SECONDS_AT_A_TIME, clock)
    calls = round(_SECONDS_AT_A_TIME * trial.steps / trial.seconds / loop.at_a_time)
    at_a_time = loop.at_a_time * max(1, calls)
    _timed[:] = [(loop, count, where, at_a_time, clock)]


def _time(seconds: float) -> Window:
    ((loop, replicas, where, at_a_time, clock),) = _timed
    return time_window(loop, replicas, where, at_a_time, seconds, clock)
