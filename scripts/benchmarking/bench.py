"""What the sections of the benchmark share: settings, problems, and contenders made from them."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarking import contender, footprint
from benchmarking.contender import Clock, Contender, Kind
from benchmarking.results import Speed
from continual import building
from continual.cli.composing import Composer
from continual.cli.jobs import run_of
from continual.config import Replica
from continual.datasets.mnist import mnist
from continual.errors import DataError
from continual.fitting import population_size
from continual.machine import cores
from continual.sweep.packing import pack

# Long enough that no task ends while it is timed.
_ONE_LONG_TASK = "env.steps_per_task=1000000"
# Bytes that a step must move at the least, in multiples of the parameters': they are read twice and written
# once, gradients are written and read, initial parameters are read.
_TIMES_PARAMETERS = 6


@dataclass(frozen=True)
class Problem:
    """What is trained: overrides of the config that choose environment, data and network."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """How to measure. `replicas` are the population sizes asked for; empty: each section's own."""

    device: torch.device
    pairs: int
    seconds: float
    clock: Clock
    replicas: tuple[int, ...]
    quick: bool
    mnist: Problem
    digits: Problem
    photographs: Problem  # 32x32 images with 3 channels, 100 classes
    bandwidth: float | None  # bytes per second, on a GPU
    peak: float | None  # floating-point operations per second of one core, on a CPU

    def sizes(self, on_cpu: Sequence[int], on_gpu: Sequence[int]) -> tuple[int, ...]:
        """The population sizes asked for, or else those for the device."""
        return self.replicas or tuple(on_gpu if self.device.type == "cuda" else on_cpu)

    def compose(self, problem: Problem, *overrides: str, replicas: int = 1) -> list[Replica]:
        """Replicas of this problem with the seeds 0, 1, ...; ConfigError if they cannot be run."""
        settings = [f"device={self.device}", f"engine.compile={str(not self.quick).lower()}"]
        run = run_of(Composer().run([*problem.overrides, *settings, *overrides]), "benchmark")
        return [dataclasses.replace(run, config={**run.config, "seed": seed}) for seed in range(replicas)]

    def population(self, problem: Problem, *overrides: str, replicas: int) -> Contender:
        """One population of so many replicas."""
        return Contender(
            [self.compose(problem, _ONE_LONG_TASK, *overrides, replicas=replicas)], clock=self.clock
        )

    def plain(self, problem: Problem, *overrides: str, kind: Kind = "plain", processes: int = 1) -> Contender:
        """One plain loop, or several at the same time."""
        run = self.compose(problem, _ONE_LONG_TASK, *overrides)
        return Contender([run] * processes, kind, self.clock)

    def in_c(self, problem: Problem, *overrides: str) -> Contender:
        """A program in C that trains one network, an image at a step."""
        return Contender([self.compose(problem, _ONE_LONG_TASK, *overrides)], "c", self.clock)

    def jax(self, problem: Problem, *overrides: str, replicas: int, processes: int = 1) -> Contender:
        """So many replicas by JAX, shared out among processes."""
        runs = self.compose(problem, _ONE_LONG_TASK, *overrides, replicas=replicas)
        return Contender([runs[i::processes] for i in range(processes)], "jax", self.clock)

    def on_all_cores(self, problem: Problem, *overrides: str, replicas: int) -> Contender:
        """Populations as a sweep of so many runs is cut into, of which as many run as there are cores."""
        all_runs = self.compose(problem, _ONE_LONG_TASK, *overrides, replicas=replicas)
        size = self.fastest_size(problem, *overrides)
        return Contender(pack(all_runs, lambda run: size, cores())[: cores()], clock=self.clock)

    def fastest_size(self, problem: Problem, *overrides: str) -> int:
        """The size that the launcher would give to populations of this problem."""
        return population_size(self.compose(problem, *overrides)[0])

    def speed(
        self,
        section: str,
        what: str,
        measured: Contender,
        replicas: int,
        against: str,
        reference: Contender,
        at_least: float | None = None,
        parameter_bytes: int = 0,
        flops: int = 0,
    ) -> Speed:
        """A row: `measured` timed in turns with `reference`."""
        pairs = contender.compare(reference, measured, self.pairs, self.seconds)
        row = Speed.of(section, what, replicas, against, pairs, at_least)
        if self.peak and flops:
            processes = pairs[0][1].processes
            share = flops * row.replica_steps_per_second / (self.peak * processes)
            row = dataclasses.replace(row, peak_share=share)
        if self.bandwidth is None or not parameter_bytes:
            return row
        moved = _TIMES_PARAMETERS * parameter_bytes * row.replica_steps_per_second
        return dataclasses.replace(row, bandwidth_share=moved / self.bandwidth)

    def flops(self, problem: Problem, *overrides: str) -> int:
        """The floating-point operations of one step's products and convolutions, for one replica."""
        return footprint.in_own_process(footprint.flops, self.compose(problem, *overrides)[0])

    def parameter_bytes(self, problem: Problem, *overrides: str) -> int:
        """The size of one network's parameters."""
        learner, _ = building.prepare(self.compose(problem, *overrides)[0].config)
        return sum(4 * p.numel() for p in learner.network.parameters())


def make_bench(
    device: torch.device,
    pairs: int,
    seconds: float,
    clock: Clock,
    replicas: Sequence[int],
    quick: bool,
    scratch: Path,
) -> tuple[Bench, str]:
    """The settings, with problems whose data that are not at hand are made up in the folder `scratch`.

    Also returns what the data are, in words.
    """
    images = 12_000 if quick else 60_000
    data_dir = os.environ.get("CONTINUAL_DATA_DIR", "data")
    try:
        mnist(data_dir, verify=False)
        data, source = ["env/dataset=mnist"], "MNIST"
    except DataError:
        data, source = (
            _random_images(scratch / "mnist.npz", images, (1, 28, 28), 10),
            "random images of MNIST's shape",
        )
    photographs = _random_images(scratch / "photographs.npz", 5_000, (3, 32, 32), 100)
    bench = Bench(
        device=device,
        pairs=pairs,
        seconds=seconds,
        clock=clock,
        replicas=tuple(replicas),
        quick=quick,
        mnist=Problem("Permuted MNIST, MLP", ("env=permuted_mnist", "network=mlp", *data)),
        digits=Problem("digits, MLP", ("env=random_label_digits", "network=mlp")),
        photographs=Problem(
            "32x32x3 images",
            ("env=random_label_mnist", "env.samples_per_task=2500", "env.batch_size=32", *photographs),
        ),
        peak=footprint.in_own_process(footprint.peak_flops) if device.type == "cpu" and not quick else None,
        bandwidth=footprint.in_own_process(footprint.copy_bandwidth, device)
        if device.type == "cuda"
        else None,
    )
    return bench, f"{source}; 32x32x3 images are random"


def _random_images(path: Path, count: int, shape: tuple[int, int, int], classes: int) -> list[str]:
    """Write random images with labels; returns the overrides that choose them."""
    draw = np.random.default_rng(0)
    x_train, x_test = (draw.integers(0, 256, (n, *shape), dtype=np.uint8) for n in (count, 1000))
    y_train, y_test = np.arange(count) % classes, np.arange(1000) % classes
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return ["env/dataset=npz", f"env.dataset.path='{path}'"]
