"""Runs so small that a test trains dozens of them: their configs, their data, their results."""

import copy
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.torch_version import TorchVersion

from continual import building, training
from continual.cli.composing import Composer, config_folder
from continual.config import Replica
from continual.datasets.dataset import Dataset
from continual.learner import Learner
from continual.machine import FIRST_RIGHT_ON_CPU
from continual.population import Population
from continual.schema import is_node, locate, number_fields, numbers
from continual.stepping import Capture
from tests.datasets.writers import random_arrays

# No size is a multiple of 4 or 16: the tensors of most replicas then begin at odd places in memory.
IMAGE = (1, 4, 5)
CLASSES = 5
_SETTINGS = ("device=cpu", "wandb.mode=disabled", "engine.compile=false")
# For a command line; `small` makes any other env and network as small.
OVERRIDES = (
    *_SETTINGS,
    "env/dataset=npz",
    "network.hidden_sizes=[9,9]",
    "env.num_tasks=2",
    "env.steps_per_task=20",
    "env.batch_size=7",
    "env.samples_per_task=40",
)
_SIZES = {
    "network": {"hidden_sizes": 9, "channels": 3},
    "env": {
        "num_tasks": 2,
        "steps_per_task": 20,
        "batch_size": 7,
        "samples_per_task": 40,
        "test_samples": 15,
        "samples_per_class": 12,
        "test_samples_per_class": 4,
        "hard_classes": 2,
        "samples": [33, 34],  # in batches of 7, four epochs are 20 steps
        "epochs": 4,
        "slow_bits": 5,
        "fast_bits": 3,
        "target_units": 6,
    },
}

# A missing compiler fails these tests; a version of PyTorch that is not compiled with cannot pass them.
compiles = pytest.mark.skipif(
    TorchVersion(torch.__version__) < FIRST_RIGHT_ON_CPU, reason="compiles steps wrongly for a CPU"
)


def options(group: str) -> list[str]:
    """The names of the YAML files of a config group."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def compose(*overrides: str) -> dict[str, Any]:
    """The resolved config that the command line would give, without Hydra's own node."""
    return copy.deepcopy(_compose(overrides))


def changed(config: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of a config with one `key=value` set, whether or not the key was there."""
    node = OmegaConf.create(config)
    name, _, value = override.partition("=")
    OmegaConf.update(node, name, OmegaConf.from_dotlist([f"value={value}"])["value"], force_add=True)
    copied = OmegaConf.to_container(node)
    assert isinstance(copied, dict)
    return {str(key): value for key, value in copied.items()}


def takes_data(env: str) -> bool:
    """Whether this option of conf/env is a view on a dataset; the default one is."""
    path = config_folder() / "env" / f"{env}.yaml"
    return not env or "- dataset:" in path.read_text()


def small(npz: Path, *overrides: str) -> dict[str, Any]:
    """The config of a run with these overrides, on the images in `npz`, and small in what they leave open."""
    given = {override.partition("=")[0] for override in overrides}
    network = () if "network" in given else ("network=mlp",)
    env = next((override for override in overrides if override.startswith("env=")), "")
    data = ("env/dataset=npz", f"env.dataset.path={npz}") if takes_data(env.partition("=")[2]) else ()
    overrides = tuple(override for override in overrides if data or not override.startswith("env.dataset."))
    config = compose(*_SETTINGS, *data, *network, *overrides)
    for part, sizes in _SIZES.items():
        for name, size in sizes.items():
            if name in config[part] and f"{part}.{name}" not in given:
                is_one_of_many = isinstance(config[part][name], list) and not isinstance(size, list)
                config[part][name] = [size] * len(config[part][name]) if is_one_of_many else size
    return config


@functools.cache
def _compose(overrides: tuple[str, ...]) -> dict[str, Any]:
    return _composer().job(overrides, number=0).config


@functools.cache
def _composer() -> Composer:
    """One for all tests: what chooses the same options is composed once."""
    return Composer()


def dataset(train: int = 60, test: int = 20, shape: tuple[int, int, int] = IMAGE) -> Dataset:
    """Noise images, uint8, in memory."""
    x_train, y_train, x_test, y_test = map(torch.from_numpy, random_arrays(train, test, shape, CLASSES))
    channels = shape[0]
    return Dataset(
        x_train, y_train, x_test, y_test, CLASSES, scale=(1 / 128,) * channels, shift=(-1.0,) * channels
    )


def vary(config: dict[str, Any], replica: int) -> dict[str, Any]:
    """A copy with a seed and per-replica numbers of its own, for each of up to four replicas.

    Numbers that are switched off stay so: they are structure.
    """
    config = copy.deepcopy(config)
    config["seed"] += replica
    for part in ("agent", "optimizer"):
        _vary_node(config[part], replica)
    return config


def _vary_node(node: dict[str, Any], replica: int) -> None:
    for name, field in number_fields(locate(node["_target_"])).items():
        if name not in node:
            continue
        if field.kind is int:
            node[name] += replica
        elif node[name] != 0:
            node[name] *= (1, 0.5, 0.25, 0.75)[replica]
        elif not field.zero_is_off:
            node[name] = 0.05 * replica
    for inner in node.values():
        if is_node(inner):
            _vary_node(inner, replica)


def replicas(configs: Sequence[dict[str, Any]], folder: Path) -> list[Replica]:
    """A run for each config, in folders 0, 1, ..."""
    return [
        Replica(config, folder / str(i), {"agent": "agent", "env": "env"}, group=folder.name)
        for i, config in enumerate(configs)
    ]


@dataclass(frozen=True)
class Finished:
    """What a run left in its folder."""

    folder: Path

    @property
    def tasks(self) -> str:
        return (self.folder / "tasks.csv").read_text()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of tasks.csv, numbers as numbers."""
        return pd.read_csv(self.folder / "tasks.csv", keep_default_na=False).to_dict("records")

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "summary.json").read_text()))

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the last checkpoint, by path."""
        return dict(torch.load(self.folder / "checkpoint.pt", weights_only=True)["state"])


def train_until(pause: int, configs: Sequence[dict[str, Any]], folder: Path) -> None:
    """Train, and stop at a pause, counted from 1; in chunks of 7 they are after steps 7, 14, 20 of a task."""
    asked = itertools.count(1)
    with pytest.raises(training.Interrupted):
        train(configs, folder, should_stop=lambda: next(asked) == pause)


def train(
    configs: Sequence[dict[str, Any]], folder: Path, should_stop: Callable[[], bool] = lambda: False
) -> list[Finished]:
    """Train the configs as one population."""
    population = replicas(configs, folder)
    training.train(population, should_stop=should_stop)
    return [Finished(replica.folder) for replica in population]


def population(
    configs: Sequence[dict[str, Any]],
    learner: Learner | None = None,
    compiled: bool = False,
    capture: Capture | None = None,
    native: bool = True,
) -> Population:
    """The population that `train` would make of these configs."""
    config = configs[0]
    made, environment = building.prepare(config)
    return Population(
        learner or made,
        environment,
        [c["seed"] for c in configs],
        {part: numbers([c[part] for c in configs]) for part in ("agent", "optimizer")},
        device=torch.device("cpu"),
        compiled=compiled,
        chunk_steps=config["engine"]["chunk_steps"],
        capture=capture,
        native=native,
    )


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Every tensor is the same bit for bit (NaN equal to NaN)."""
    assert one.keys() == other.keys()
    different = [
        f"{name}: {(one[name].double() - other[name].double()).abs().max():.3g}"
        for name in one
        if not torch.equal(one[name].nan_to_num(nan=1e30), other[name].nan_to_num(nan=1e30))
    ]
    assert not different, different


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], relative: float) -> None:
    """No tensor differs by more than this fraction of its own largest entry."""
    assert one.keys() == other.keys()
    for name in one:
        scale = float(other[name].abs().max())
        difference = float((one[name].double() - other[name].double()).abs().max())
        assert difference <= relative * scale, (name, difference, scale)
