"""From a config to what it describes: dataset, environment, network, agent, optimiser; and a population."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from continual import random, schema
from continual.agents.agent import Agent, BatchShape
from continual.config import Precision, Replica, check_config
from continual.datasets.dataset import Dataset
from continual.datasets.files import noting_what_is_read
from continual.datasets.shared import SharedDataset, share
from continual.envs.environment import Environment
from continual.errors import ConfigError, UserError
from continual.learner import Learner
from continual.machine import compiler_problem, device, ensure_compile_cache
from continual.networks.network import check_forward
from continual.optimizers import Optimizer
from continual.optimizers.schedules import Schedule
from continual.population import Population
from continual.stepping import CudaGraphs

log = logging.getLogger(__name__)

# With fewer steps to go, compiling (about 10 s) takes longer than it saves (about 2 ms a step).
_STEPS_WORTH_COMPILING = 5000

# The parts of a config that `prepare` looks at, besides `engine.precision` and `metrics.sample_plasticity`.
_PREPARED = ("agent", "network", "env", "optimizer")

# Files by name, with their sizes and the times of their last changes.
_Files: TypeAlias = tuple[tuple[str, int, int], ...]

# Of several threads: what is kept here is theirs together, and so are PyTorch's own random numbers, from
# which a network that is built draws.
_one_at_a_time = threading.RLock()

_KEPT_DATASETS = 2
# Datasets in memory that processes share, by the part of a config that describes them and its files.
_SHARED: dict[tuple[str, _Files], Dataset] = {}

_MOST_FILES = 1000
# The files that datasets were read from, or their folders where they are more than that; named as above.
_READ: dict[str, _Files] = {}


def prepare(config: Mapping[str, Any]) -> tuple[Learner, Environment]:
    """The learner and the environment that a config describes, its data read and checked against it.

    What was built last is kept: a run that was checked is not built again to be trained. Each thread has its
    own: a call puts the parameters that it is given into the network's module, and takes them out again.
    Raises UserError: a config that cannot be run, data that is missing or damaged or too small.
    """
    check_config(config)
    wanted = {name: config[name] for name in _PREPARED}
    wanted["measures_plasticity"] = config["metrics"]["sample_plasticity"]
    # The classes and functions themselves: in a notebook a name may soon be another class's.
    targets = tuple(map(schema.locate, schema.targets(wanted)))
    with _one_at_a_time:
        _, files = _names_of(config) if "dataset" in config["env"] else ("", ())
        text, precision = json.dumps(wanted, sort_keys=True), config["engine"]["precision"]
        return _prepare(text, targets, files, precision, threading.get_ident())


@functools.lru_cache(maxsize=4)
def _prepare(
    parts: str, targets: tuple[Callable[..., Any], ...], files: _Files, precision: Precision, thread: int
) -> tuple[Learner, Environment]:
    ensure_compile_cache()
    config = json.loads(parts)
    agent: Agent = schema.make(config["agent"], "agent")
    optimizer: Optimizer = schema.make(config["optimizer"], "optimizer")
    provided = {}
    if "dataset" in config["env"]:
        provided["dataset"] = _dataset(_json(config["env"]["dataset"]), files)
    environment: Environment = schema.make(config["env"], "env", **provided)
    # A module's own draws are those of no replica: they decide only what is frozen, in all of them alike.
    with _saying_what_does_not_fit("network"), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = schema.make(
            config["network"],
            "network",
            input_shape=environment.input_shape,
            num_classes=environment.num_classes,
        )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = environment.batch_size
    batch = BatchShape((size, *environment.input_shape), (size, environment.num_classes))
    learner = Learner.of(network, agent, optimizer, dtype, environment.loss, batch)
    learner = dataclasses.replace(learner, measures_plasticity=config["measures_plasticity"])
    check_forward(learner.network, environment.input_shape, environment.num_classes)
    _check_environment(environment, learner)
    return learner, environment


def _check_schedule(environment: Environment, schedule: Schedule | None) -> None:
    """ConfigError if a schedule does not come to its end."""
    if schedule is None:
        return
    tasks = range(environment.num_tasks)
    steps = environment.first_step(environment.num_tasks)
    if schedule.over == "task":
        steps = max(environment.steps(task) for task in tasks)
    if schedule.length > steps:
        raise ConfigError(
            f"optimizer.schedule.steps: {schedule.length} is more than the {steps} steps of a "
            f"{schedule.over}."
        )


def _check_environment(environment: Environment, learner: Learner) -> None:
    """ConfigError if this environment's tasks cannot be given to this learner."""
    if environment.output_layer != "keep" and not learner.anatomy.output_parameters:
        raise ConfigError(
            f"env.output_layer: {environment.output_layer} needs a network with an output layer, and this "
            "one has no weight that could be it."
        )
    _check_schedule(environment, learner.optimizer.schedule)
    key = random.stream(random.key(0), "environment")
    task = environment.task(environment.draw_stream(key), key, 0)
    _, y_B = environment.training_examples(task, 0, key, torch.zeros(1, dtype=torch.int64))
    environment.loss.check_targets(y_B)


class SharedData(NamedTuple):
    """A dataset in memory that processes share, and what it is called: see `_names_of`."""

    node: str
    files: _Files
    dataset: SharedDataset


def share_dataset(config: Mapping[str, Any]) -> SharedData | None:
    """Put the config's dataset where other processes `use` it; None if it cannot be read or shared.

    This process uses it there too, and lets go of its own copy. The caller closes it in the end.
    """
    if "dataset" not in config["env"]:
        return None
    with _one_at_a_time:
        node, files = _names_of(config)
        try:
            shared = share(_dataset(node, files))
        except UserError:
            return None  # whoever is to train on it says why
        if shared is None:
            return None
        forget()
        data = SharedData(node, files, shared)
        use_shared(data)
        return data


def use_shared(data: SharedData) -> None:
    """Use this dataset for all configs that describe it, instead of reading it."""
    with contextlib.suppress(OSError):  # then it is read
        _SHARED[data.node, data.files] = data.dataset.open()
    while len(_SHARED) > _KEPT_DATASETS:
        del _SHARED[next(iter(_SHARED))]


def _dataset(node: str, files: _Files) -> Dataset:
    """The dataset that this part of a config (as JSON) describes; populations share it."""
    shared = _SHARED.get((node, files))
    return _read_dataset(node, files) if shared is None else shared


@functools.lru_cache(maxsize=_KEPT_DATASETS)
def _read_dataset(node: str, files: _Files) -> Dataset:
    with noting_what_is_read() as paths:
        dataset = schema.make(json.loads(node), "env.dataset")
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"env.dataset._target_: {json.loads(node)['_target_']} returns a {type(dataset).__name__}, "
            "not a Dataset."
        )
    _READ[node] = _as_they_are(paths if len(paths) <= _MOST_FILES else {path.parent for path in paths})
    return dataset


def _names_of(config: Mapping[str, Any]) -> tuple[str, _Files]:
    """What names a dataset: the part of a config that describes it, as JSON, and the files named there.

    If it was read before from files that have changed since, it is let go of.
    """
    described = config["env"]["dataset"]
    node = _json(described)
    read = _READ.get(node, ())
    if _as_they_are(path for path, *_ in read) != read:
        del _READ[node]
        for key in [key for key in _SHARED if key[0] == node]:
            del _SHARED[key]
        forget()
    return node, _as_they_are(v for v in described.values() if isinstance(v, str) and os.path.isfile(v))


def _json(node: Mapping[str, Any]) -> str:
    return json.dumps(node, sort_keys=True)


def forget() -> None:
    """Let go of what was built last."""
    _prepare.cache_clear()
    _read_dataset.cache_clear()


def _as_they_are(paths: Iterable[str | Path]) -> _Files:
    """These files with their sizes and times as they are now; -1 for one that is not there."""
    found = []
    for path in sorted(map(str, paths)):
        try:
            now = os.stat(path)
            found.append((path, now.st_size, now.st_mtime_ns))
        except OSError:
            found.append((path, -1, -1))
    return tuple(found)


def population(
    replicas: Sequence[Replica],
    learner: Learner,
    environment: Environment,
    compiled: bool | None = None,
) -> Population:
    """The population of these replicas, compiled or not, or as the config says."""
    config = replicas[0].config
    engine = config["engine"]
    torch.set_num_threads(engine["threads"])
    # Weights that decay towards zero pass through denormal numbers, on which a CPU is 100x slower.
    torch.set_flush_denormal(True)
    where = device(config["device"])
    _round_products(engine["precision"])
    if where.index is not None:
        torch.cuda.set_device(where)  # graphs are captured on the current one
    steps = environment.first_step(environment.num_tasks)
    # Taking a matrix apart waits for the GPU, which no graph can hold.
    can_capture = where.type == "cuda" and not learner.decomposes
    captures = engine["cuda_graph"] is True or (engine["cuda_graph"] == "auto" and can_capture)
    with _saying_what_does_not_fit("engine.max_replicas"):
        return Population(
            learner,
            environment,
            [replica.config["seed"] for replica in replicas],
            {part: schema.numbers([r.config[part] for r in replicas]) for part in ("agent", "optimizer")},
            device=where,
            compiled=_compiles(engine["compile"], steps, where) if compiled is None else compiled,
            chunk_steps=engine["chunk_steps"],
            capture=CudaGraphs() if captures else None,
        )


@contextlib.contextmanager
def _saying_what_does_not_fit(key: str) -> Iterator[None]:
    """ConfigError where the CPU's memory does not hold what is made; a GPU's has an error of its own."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not re.search("allocate|overflow", str(error)):
            raise
        raise ConfigError(
            f"{key}: this does not fit into the machine's memory; use a smaller network or batch, fewer "
            "steps in a chunk (engine.chunk_steps) or fewer replicas (engine.max_replicas)."
        ) from error


def _round_products(precision: Precision) -> None:
    """Let a GPU's products of float32 matrices and convolutions have 10 bits after the point, or all 23."""
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def _compiles(setting: str | bool, steps: int, where: torch.device) -> bool:
    wanted = steps >= _STEPS_WORTH_COMPILING if setting == "auto" else bool(setting)
    problem = compiler_problem(where) if wanted else None
    if problem is not None:
        log.warning("%s: steps run uncompiled, several times slower.", problem)
    return wanted and problem is None
