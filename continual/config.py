"""The whole config of a run: its typed top level and its checks.

The nodes `agent`, `network`, `env` and `optimizer` are typed by the signatures of the classes that they
name (`continual.schema`); everything else is typed here.
"""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from continual import schema
from continual.errors import ConfigError
from continual.machine import check_device_name, device
from continual.schema import Count, Seed

Config: TypeAlias = Mapping[str, Any]
Precision: TypeAlias = Literal["float32", "tf32", "bf16"]

# What the program itself adds to the arguments that a node of the config gives; a dataset only where the
# environment takes one.
PROVIDED = {
    "agent": (),
    "network": ("input_shape", "num_classes"),
    "env": ("dataset",),
    "optimizer": (),
}


@dataclass(frozen=True)
class EngineConfig:
    """How populations are trained; nothing but `precision` changes a result beyond the rounding of floats."""

    compile: Literal["auto"] | bool = "auto"
    cuda_graph: Literal["auto"] | bool = "auto"
    precision: Precision = "float32"
    max_replicas: Literal["auto"] | Count = "auto"
    chunk_steps: Count = 500
    checkpoint_minutes: Annotated[float, Ge(0)] = 5.0
    keep_checkpoint: bool = True
    threads: Annotated[int, Ge(1), Le(256)] = 1


@dataclass(frozen=True)
class MetricsConfig:
    """What is measured besides the columns that every run has."""

    forgetting: bool = False
    task_fractions: list[Annotated[float, Gt(0), Lt(1)]] = field(default_factory=list)
    gradients: bool = False
    sample_plasticity: bool = False
    extra: list[Literal["approximate_rank", "rarely_active_unit_fraction"]] = field(default_factory=list)


def _wandb_name(longest: int, refused: str = "") -> AfterValidator:
    """A name that W&B takes: not blank, not longer than this, without these characters."""
    listed = " ".join(refused.replace(" ", ""))
    without = f" without {'spaces or ' if ' ' in refused else ''}any of {listed}" if refused else ""

    def check(name: str) -> str:
        if not name.strip() or len(name) > longest or set(refused) & set(name):
            raise PydanticCustomError("wandb_name", f"must be 1 to {longest} characters{without}")
        return name

    return AfterValidator(check)


@dataclass(frozen=True)
class WandbConfig:
    """Where the runs' metrics go besides their own folders."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: Annotated[str, _wandb_name(128, "/\\#?%:")] = "continual"
    entity: Annotated[str, _wandb_name(128, "/\\#?%: ")] | None = None
    group: Annotated[str, _wandb_name(128)] | None = None
    name: Annotated[str, _wandb_name(128)] | None = None
    tags: list[Annotated[str, _wandb_name(64)]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainConfig:
    """The top level."""

    seed: Seed
    device: str
    data_dir: str
    agent: dict[str, Any]
    network: dict[str, Any]
    env: dict[str, Any]
    optimizer: dict[str, Any]
    metrics: dict[str, Any]
    engine: dict[str, Any]
    wandb: dict[str, Any]
    notes: Any = None


_NODES: dict[str, type[EngineConfig] | type[MetricsConfig] | type[WandbConfig]] = {
    "engine": EngineConfig,
    "wandb": WandbConfig,
    "metrics": MetricsConfig,
}


@dataclass(frozen=True)
class Replica:
    """One run: its resolved config, the folder it writes to, and what it is called.

    `choices` are the names of the options chosen in each config group ({"agent": "l2_init", ...});
    `group` is the sweep that it belongs to.
    """

    config: dict[str, Any]
    folder: Path
    choices: Mapping[str, str]
    group: str


def check_config(config: Config) -> None:
    """Raise ConfigError, in one sentence, if this config cannot be run; no data is read for it."""
    schema.check_values(TrainConfig, config, "")
    for name, node in _NODES.items():
        schema.check_values(node, config[name], name)
        for field_ in fields(node):
            if field_.name not in config[name]:
                raise ConfigError(f"{name}.{field_.name}: missing; give it a value.")
    for name in PROVIDED["network"]:
        if name in config["network"]:
            raise ConfigError(f"network.{name}: the environment says what it is; leave it out.")
    for name, kind in _kinds().items():
        provided = () if name == "env" and not _takes_data(config["env"]) else PROVIDED[name]
        schema.check(config[name], name, provided)
        target = config[name]["_target_"]
        located = schema.locate(target)
        if not (isinstance(located, type) and issubclass(located, kind)):
            raise ConfigError(f"{name}._target_: {target} is not a subclass of {kind.__name__}.")
    if _takes_data(config["env"]):
        if not isinstance(config["env"].get("dataset"), Mapping):
            raise ConfigError("env.dataset: missing; choose one with env/dataset=...")
        schema.check(config["env"]["dataset"], "env.dataset")
        schema.check_kind(config["env"]["dataset"]["_target_"], _dataset_type(), "env.dataset")
    check_device_name(config["device"])
    names = [f"{fraction:g}" for fraction in config["metrics"]["task_fractions"]]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"metrics.task_fractions: {', '.join(names)} name their columns and must all be different."
        )


def with_defaults(config: Config) -> dict[str, Any]:
    """The config of an earlier version of this program, with what has been added to its plain nodes since."""
    return dict(config) | {
        name: {**vars(node()), **config[name]}
        for name, node in _NODES.items()
        if isinstance(config.get(name), Mapping)
    }


def _dataset_type() -> type:
    from continual.datasets.dataset import Dataset

    return Dataset


@functools.cache
def _kinds() -> dict[str, type]:
    """What the classes of these nodes derive from; imported only to check a config."""
    from torch import nn

    from continual.agents.agent import Agent
    from continual.envs.environment import Environment
    from continual.optimizers import Optimizer

    return {"agent": Agent, "network": nn.Module, "env": Environment, "optimizer": Optimizer}


def _takes_data(env: Config) -> bool:
    """Whether an environment is a view on a dataset; what cannot be found is reported elsewhere."""
    try:
        return "dataset" in inspect.signature(schema.locate(env["_target_"])).parameters
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return True


def check_engine(config: Config, device_type: str) -> None:
    """ConfigError if a device of this type ("cpu" or "cuda") cannot train as the config's engine says."""
    if device_type == "cuda":
        return
    if config["engine"]["cuda_graph"] is True:
        raise ConfigError("engine.cuda_graph: true needs a GPU, and this trains on a CPU; use auto or false.")
    if config["engine"]["precision"] == "tf32":
        raise ConfigError(
            "engine.precision: tf32 needs a GPU, and this trains on a CPU; use float32 or bf16."
        )


def check_here(config: Config) -> None:
    """ConfigError if this machine cannot train a run of this config."""
    check_engine(config, device(config["device"]).type)


def config_folder() -> Path:
    """The folder of the YAML configs: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "train.yaml").exists() else package / "conf"


def num_steps(config: Config, tasks: int | None = None) -> int:
    """How many steps a run of this config takes for so many tasks; None: for all of them."""
    environment: Any = schema.locate(config["env"]["_target_"])
    return int(environment.num_steps(config["env"], tasks))
