"""What a run costs besides its steps: memory, starting, laying out and measuring tasks."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

import continual
from benchmarking.contender import loop_of, pin, process, wait_for
from continual import building, measuring
from continual.config import Replica
from continual.cpu.library import library
from continual.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

_STEPS = 5
_ROUNDS, _SECONDS_FOR_PEAK = 100_000, 2.0
_COPIED_BYTES = 2**30


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result in a fresh process."""
    with process() as own:
        return own.submit(function, *args, **kwargs).result()


def peak_memory_mb(replicas: Sequence[Replica]) -> float:
    """The process's peak memory after a few steps, the measures and a checkpoint's copy of one replica."""
    learner, environment = building.prepare(replicas[0].config)
    population = building.population(replicas, learner, environment)
    population.start_task(0)
    population.advance(_STEPS)
    measuring.at_task_end(population)
    population.replica_state(0)
    return _peak_memory_mb()


def task_seconds(replicas: Sequence[Replica], repeats: int) -> tuple[float, float]:
    """How long a population takes to lay out a task and to measure one; the best of some repeats."""
    learner, environment = building.prepare(replicas[0].config)
    population = building.population(replicas, learner, environment)
    population.start_task(0)
    population.advance(1)
    measuring.at_task_end(population)
    laying_out, looking = [], []
    for task in range(1, repeats + 1):
        start = time.perf_counter()
        population.start_task(task)
        wait_for(population.device)
        between = time.perf_counter()
        measuring.at_task_end(population)
        laying_out.append(between - start)
        looking.append(time.perf_counter() - between)
    return min(laying_out), min(looking)


def process_seconds(overrides: Sequence[str], compile_cache: Path) -> float:
    """How long a whole process takes that trains one step, with this folder of compiled code."""
    script = Path(continual.__file__).parents[1] / "scripts" / "train.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), *overrides, f"hydra.run.dir='{folder}/run'"]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compile_cache)}
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise UserError(f"{script.name} failed: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return seconds


def flops(replica: Replica) -> int:
    """The floating-point operations of one step's products and convolutions, as torch counts them."""
    loop = loop_of([replica], "plain")
    with FlopCounterMode(display=False) as counter:
        loop.run(1)
    return int(counter.get_total_flops())


def peak_flops() -> float:
    """Floating-point operations per second of this core, by multiply-adds that wait for nothing."""
    pin(0)
    count, best = library().multiply_adds(_ROUNDS), 0.0
    end = time.perf_counter() + _SECONDS_FOR_PEAK
    while time.perf_counter() < end:
        start = time.perf_counter()
        library().multiply_adds(_ROUNDS)
        best = max(best, 2 * count / (time.perf_counter() - start))
    return best


def copy_bandwidth(where: torch.device) -> float:
    """Bytes per second, read and written, of a large copy on a GPU; the best of ten."""
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        wait_for(where)
        start = time.perf_counter()
        target.copy_(source)
        wait_for(where)
        times.append(time.perf_counter() - start)
    return 2 * _COPIED_BYTES / min(times)


def _peak_memory_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone: getrusage's number starts with that of the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
