"""The sections of the benchmark: what is compared with what, and which ratio is wanted."""

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from benchmarking import convolutions, footprint
from benchmarking.bench import Bench, Problem
from benchmarking.c_loop import compiler
from benchmarking.results import Amount, Row
from continual.cli.composing import config_folder
from continual.machine import cores

Section: TypeAlias = Callable[[Bench], Iterator[Row]]

_L2_INIT = "agent=l2_init"
_GPU_SIZES = (1, 8, 64, 256, 1024)
_NEARLY_BASE = ("redo", "continual_backprop", "shrink_and_perturb", "ewc")
_SWEEP = 32  # runs of the small sweep that is timed on all cores
_ONLINE = ("env.batch_size=1", "env.samples_per_task=10000")  # a step for each image, as online methods have

# The least ratio wanted, by device, section, row and replicas.
_AT_LEAST = {
    ("cpu", "engine", "sgd", 1): 3.0,
    ("cpu", "engine", "sgd, all cores", _SWEEP): 6.0,
    ("cpu", "jax", 1): 1.4,
    ("cpu", "jax", 4): 1.2,
    ("cpu", "jax", 32): 1.2,
    ("cpu", "networks", "convnet", 1): 1.2,
    ("cuda", "engine", "sgd", 1): 8.0,
    ("cuda", "engine", "sgd", 256): 500.0,
    ("cuda", "networks", "convnet", 64): 20.0,
}


def engine(bench: Bench) -> Iterator[Row]:
    """The main job with SGD and Adam: one population, and a sweep on all cores, beside a plain loop."""
    cpu = bench.device.type == "cpu"
    size = bench.parameter_bytes(bench.mnist)
    flops = bench.flops(bench.mnist) if bench.peak else 0
    for optimizer in ("sgd",) if bench.quick else ("sgd", "adam"):
        chosen = (_L2_INIT, f"optimizer={optimizer}")
        against = f"plain loop, {optimizer}"
        with bench.plain(bench.mnist, *chosen) as plain:
            if not bench.quick:
                with bench.plain(bench.mnist, *chosen, kind="compiled") as compiled:
                    what = f"plain loop, {optimizer}, torch.compile"
                    yield bench.speed("engine", what, compiled, 1, against, plain)
            # Seconds of a core add up over threads: they say nothing of several.
            if cpu and cores() > 1 and not bench.quick and bench.clock == "wall":
                with bench.plain(bench.mnist, *chosen, f"engine.threads={cores()}") as threaded:
                    what = f"plain loop, {optimizer}, {cores()} threads"
                    yield bench.speed("engine", what, threaded, 1, against, plain)
            for replicas in bench.sizes((1,), _GPU_SIZES):
                with bench.population(bench.mnist, *chosen, replicas=replicas) as population:
                    least = _AT_LEAST.get((bench.device.type, "engine", optimizer, replicas))
                    yield bench.speed(
                        "engine",
                        optimizer,
                        population,
                        replicas,
                        against,
                        plain,
                        least,
                        parameter_bytes=size,
                        flops=flops,
                    )
        if cpu:
            sweep = 2 * cores() if bench.quick else _SWEEP
            with (
                bench.plain(bench.mnist, *chosen, processes=cores()) as plain,
                bench.on_all_cores(bench.mnist, *chosen, replicas=sweep) as populations,
            ):
                what = f"{optimizer}, all cores"
                least = _AT_LEAST.get(("cpu", "engine", what, sweep))
                against = f"plain loop, {optimizer}, one per core"
                yield bench.speed("engine", what, populations, sweep, against, plain, least, flops=flops)
    if bench.quick:
        return
    usual = bench.fastest_size(bench.mnist, _L2_INIT) if cpu else 256
    for replicas in bench.sizes((1, usual), (1, usual)):
        with (
            bench.population(bench.mnist, _L2_INIT, "optimizer=sgd", replicas=replicas) as sgd,
            bench.population(bench.mnist, _L2_INIT, "optimizer=adam", replicas=replicas) as adam,
        ):
            least = 0.85 if cpu else 0.5 if replicas == 256 else None
            yield bench.speed("engine", "adam", adam, replicas, "sgd", sgd, least)


def beside_jax(bench: Bench) -> Iterator[Row]:
    """The main job beside JAX, where that is installed: vmap over replicas, scan over steps."""
    if bench.device.type != "cpu" or find_spec("jax") is None:
        return
    chosen = (_L2_INIT, "optimizer=sgd")
    flops = bench.flops(bench.mnist) if bench.peak else 0
    for replicas in (1,) if bench.quick else bench.sizes((1, 4, _SWEEP), ()):
        with (
            bench.jax(bench.mnist, *chosen, replicas=replicas) as jax,
            bench.population(bench.mnist, *chosen, replicas=replicas) as population,
        ):
            least = _AT_LEAST.get(("cpu", "jax", replicas))
            yield bench.speed("jax", "one core", population, replicas, "JAX", jax, least, flops=flops)
    if bench.quick:
        return
    with (
        bench.jax(bench.mnist, *chosen, replicas=_SWEEP, processes=cores()) as jax,
        bench.on_all_cores(bench.mnist, *chosen, replicas=_SWEEP) as populations,
    ):
        what = "all cores"
        yield bench.speed(
            "jax", what, populations, _SWEEP, "JAX, one process per core", jax, 1.2, flops=flops
        )


def online(bench: Bench) -> Iterator[Row]:
    """A step for each image, beside a plain loop and, on a CPU, a program in C."""
    for optimizer, widths in (("sgd", "[100,100,100]"), ("adam", "[300,150]")):
        chosen = ("agent=base", f"optimizer={optimizer}", f"network.hidden_sizes={widths}", *_ONLINE)
        what = f"{optimizer}, hidden layers {widths}"
        with bench.population(bench.mnist, *chosen, replicas=1) as population:
            with bench.plain(bench.mnist, *chosen) as plain:
                yield bench.speed("online", what, population, 1, "plain loop", plain)
            if bench.device.type == "cpu" and compiler() is not None:
                with bench.in_c(bench.mnist, *chosen) as program:
                    yield bench.speed("online", what, population, 1, "C, one thread", program, 0.5)


def sizes(bench: Bench) -> Iterator[Row]:
    """How the speed of one process depends on the size of its population."""
    conv = Problem("32x32x3 images, convnet", (*bench.photographs.overrides, "network=convnet"))
    for problem in (bench.mnist,) if bench.quick else (bench.mnist, bench.digits, conv):
        chosen = (_L2_INIT, "optimizer=sgd")
        what = f"{problem.name} (size chosen: {bench.fastest_size(problem)})"
        with bench.population(problem, *chosen, replicas=1) as one:
            for replicas in (2,) if bench.quick else bench.sizes((2, 4, 8, 16, 32), _GPU_SIZES[1:]):
                with bench.population(problem, *chosen, replicas=replicas) as population:
                    yield bench.speed("sizes", what, population, replicas, "1 replica", one)


def agents(bench: Bench) -> Iterator[Row]:
    """Every agent of conf/agent on the main job, beside `base`."""
    names = [name for name in _options("agent") if name != "base"]
    for replicas in (1,) if bench.quick else bench.sizes((1, 8), _GPU_SIZES):
        with (
            bench.population(bench.mnist, "agent=base", "optimizer=sgd", replicas=replicas) as base,
            bench.plain(bench.mnist, "agent=base", "optimizer=sgd") as plain,
        ):
            yield bench.speed("agents", "base", base, replicas, "plain loop", plain)
            for name in names[:1] if bench.quick else names:
                with bench.population(
                    bench.mnist, f"agent={name}", "optimizer=sgd", replicas=replicas
                ) as population:
                    least = 0.7 if name in _NEARLY_BASE else None
                    yield bench.speed("agents", name, population, replicas, "base", base, least)
                    if bench.device.type == "cuda":
                        yield bench.speed("agents", name, population, replicas, "plain loop, base", plain)


def networks(bench: Bench) -> Iterator[Row]:
    """Every network of conf/network beside a plain loop of the same network."""
    for name in ("mlp",) if bench.quick else _options("network"):
        of = bench.mnist if name == "mlp" else bench.photographs
        problem = Problem(name, (*of.overrides, f"network={name}"))
        chosen = (_L2_INIT, "optimizer=sgd")
        own_sizes = {1, bench.fastest_size(problem)} if bench.device.type == "cpu" else ()
        size = bench.parameter_bytes(problem)
        with bench.plain(problem, *chosen) as plain:
            for replicas in (1,) if bench.quick else bench.sizes(sorted(own_sizes), _GPU_SIZES):
                with bench.population(problem, *chosen, replicas=replicas) as population:
                    least = _AT_LEAST.get((bench.device.type, "networks", name, replicas))
                    yield bench.speed(
                        "networks",
                        name,
                        population,
                        replicas,
                        "plain loop",
                        plain,
                        least,
                        parameter_bytes=size,
                    )


def graphs(bench: Bench) -> Iterator[Row]:
    """What CUDA graphs and compiling add to each other, on a GPU."""
    if bench.device.type != "cuda":
        return
    chosen = (_L2_INIT, "optimizer=sgd")
    for replicas in bench.sizes((), (1, 256)):
        with bench.population(bench.mnist, *chosen, replicas=replicas) as both:
            for what, *without in (
                ("no graph", "engine.cuda_graph=false"),
                ("uncompiled", "engine.compile=false"),
                ("neither", "engine.cuda_graph=false", "engine.compile=false"),
            ):
                with bench.population(bench.mnist, *chosen, *without, replicas=replicas) as population:
                    yield bench.speed("graphs", what, population, replicas, "graph and compiled", both)


def precisions(bench: Bench) -> Iterator[Row]:
    """What less precise arithmetic gains, on a GPU."""
    if bench.device.type != "cuda":
        return
    conv = Problem("convnet", (*bench.photographs.overrides, "network=convnet"))
    for problem, replicas in ((bench.mnist, 256), (conv, 64)):
        chosen = (_L2_INIT, "optimizer=sgd")
        with bench.population(problem, *chosen, replicas=replicas) as exact:
            for precision in ("tf32", "bf16"):
                rounded = (*chosen, f"engine.precision={precision}")
                with bench.population(problem, *rounded, replicas=replicas) as population:
                    what = f"{problem.name}, {precision}"
                    yield bench.speed("precisions", what, population, replicas, "float32", exact)


def ways_to_convolve(bench: Bench) -> Iterator[Row]:
    """Ways to convolve with many replicas' weights, forwards and backwards."""
    repeats = 1 if bench.quick else 20
    for replicas in (2,) if bench.quick else bench.sizes((1, 4), (8, 64, 256)):
        for name, way in convolutions.WAYS.items():
            taken = footprint.in_own_process(convolutions.milliseconds, way, replicas, bench.device, repeats)
            yield Amount("convolutions", f"{name}, R = {replicas}", taken, "ms")


def tasks(bench: Bench) -> Iterator[Row]:
    """What a task costs besides its steps."""
    for replicas in (1,) if bench.quick else bench.sizes((1, 8), _GPU_SIZES):
        runs = bench.compose(bench.mnist, _L2_INIT, "engine.compile=false", replicas=replicas)
        laying_out, measuring = footprint.in_own_process(footprint.task_seconds, runs, bench.pairs)
        yield Amount("tasks", f"lay out a task, R = {replicas}", 1000 * laying_out, "ms")
        yield Amount("tasks", f"measure a task, R = {replicas}", 1000 * measuring, "ms")


def start(bench: Bench) -> Iterator[Row]:
    """From nothing to the first step and out again; on a CPU also as it is where nothing is replayed."""

    def row(what: str, cache: str, most: float | None, *settings: str) -> Amount:
        one_step = ("env.num_tasks=1", "env.steps_per_task=1", f"device={bench.device}", *settings)
        seconds = footprint.process_seconds((*bench.mnist.overrides, *one_step), Path(cache))
        return Amount("start", f"one step, {what}", seconds, "s", most)

    with tempfile.TemporaryDirectory() as cache:
        yield row("uncompiled", cache, 8.0, "engine.compile=false")
    if bench.quick:
        return
    ways: dict[str, tuple[str, float | None]] = {"": ("engine.threads=1", 30.0)}
    if bench.device.type == "cpu":  # several threads are not replayed
        ways["by the library, "] = ("engine.threads=2", None)
    for way, (threads, most) in ways.items():
        compiled = ("engine.compile=true", threads)
        with tempfile.TemporaryDirectory() as cache:
            yield row(f"{way}compiled, nothing cached", cache, most, *compiled)
            yield row(f"{way}compiled before", cache, None, *compiled)


def memory(bench: Bench) -> Iterator[Row]:
    """What replicas add to the memory of one; peak over steps, measures and a checkpoint's copy."""
    many = 8 if bench.quick else 64
    peaks = [
        footprint.in_own_process(
            footprint.peak_memory_mb, bench.compose(bench.mnist, _L2_INIT, replicas=replicas)
        )
        for replicas in (1, many)
    ]
    yield Amount("memory", "1 replica", peaks[0], "MB")
    yield Amount("memory", f"{many} replicas, above that", peaks[1] - peaks[0], "MB", 300.0)


SECTIONS: dict[str, tuple[str, Section]] = {
    "engine": ("Engine: Permuted MNIST, MLP 784-100-100-10, batch 16, l2_init", engine),
    "jax": ("Beside JAX: Permuted MNIST, MLP 784-100-100-10, batch 16, l2_init, SGD", beside_jax),
    "online": ("Batches of one image: Permuted MNIST, MLP", online),
    "sizes": ("Population sizes, one process", sizes),
    "agents": ("Agents: Permuted MNIST, MLP, batch 16, SGD", agents),
    "networks": ("Networks: l2_init, SGD; batch 16 (mlp) or 32", networks),
    "graphs": ("CUDA graphs: Permuted MNIST, MLP, l2_init, SGD", graphs),
    "precisions": ("Precision: l2_init, SGD", precisions),
    "convolutions": ("Convolutions of convnet, forwards and backwards, batch 32", ways_to_convolve),
    "tasks": ("Tasks: Permuted MNIST, MLP, besides the steps", tasks),
    "start": ("Start: a whole process that trains one step", start),
    "memory": ("Memory: Permuted MNIST, MLP, l2_init", memory),
}


def _options(group: str) -> list[str]:
    """The names of the options of a config group."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
