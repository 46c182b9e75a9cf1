"""What a config has to say and what it may not: checks that are made before anything is read or written."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from hydra.core.override_parser.types import Override

from continual.config import Config, EngineConfig, MetricsConfig, WandbConfig, check_config
from continual.errors import ConfigError

_PARTS = {"engine": EngineConfig, "metrics": MetricsConfig, "wandb": WandbConfig}


_OF_A_RUN = ("hydra.run",)
_OF_A_SWEEP = (
    *("sweep", "hydra/launcher", "hydra/sweeper"),
    *("hydra.sweep", "hydra.launcher", "hydra.sweeper"),
)


def check_mode(overrides: Sequence[Override], multirun: bool) -> None:
    """ConfigError if something is typed that is for sweeps alone, or in a sweep for single runs alone."""
    for one in overrides:
        key = one.key_or_group
        if multirun and _is_any(key, _OF_A_RUN):
            raise ConfigError(f"{key}: is for a single run; a sweep has hydra.sweep.dir, in Python folder=.")
        if not multirun and _is_any(key, _OF_A_SWEEP):
            instead = " or, for the folder of a single run, give hydra.run.dir" if "sweep.dir" in key else ""
            raise ConfigError(f"{key}: is for sweeps; add -m{instead}.")


def _is_any(key: str, nodes: Sequence[str]) -> bool:
    """Whether a key is one of these nodes or below one."""
    return any(key == node or key.startswith(node + ".") for node in nodes)


def check_complete(config: Config) -> None:
    """ConfigError if a composed config cannot be run, or lacks a key that conf/train.yaml gives a value."""
    check_config(config)
    for part, kind in _PARTS.items():
        for field in fields(kind):
            if field.name not in config[part]:
                raise ConfigError(f"{part}.{field.name}: missing; give it a value.")


def check_hydra(node: Mapping[str, Any]) -> None:
    """ConfigError for settings of Hydra's that this program does not follow, or cannot use.

    `node` is Hydra's own node as plain values, its interpolations as they are.
    """
    if node.get("callbacks"):
        raise ConfigError("hydra.callbacks: no callbacks are called here; leave it empty.")
    if node["job"].get("chdir"):
        raise ConfigError(
            "hydra.job.chdir: the paths of a config start where the command is given; leave it false."
        )
    if node.get("output_subdir") != ".hydra":
        raise ConfigError("hydra.output_subdir: a run's config is kept in .hydra; leave it as it is.")
    name = node["job"].get("name")
    if not isinstance(name, str) or name in ("", ".", "..") or PurePath(name).name != name:
        raise ConfigError(
            f"hydra.job.name: must be a name without slashes, as a file is called by it; not {name!r}."
        )
    for path in (("run", "dir"), ("sweep", "dir"), ("sweep", "subdir")):
        value = (node.get(path[0]) or {}).get(path[1])
        if value in (None, ""):
            raise ConfigError(f"hydra.{'.'.join(path)}: missing; it must name a folder.")
    for plugin in ("launcher", "sweeper"):
        one = node.get(plugin)
        if not isinstance(one, Mapping) or not isinstance(one.get("_target_"), str):
            raise ConfigError(f"hydra.{plugin}: missing; choose one with hydra/{plugin}=...")
