"""What a config has to say and what it may not: checks that are made before anything is read or written."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from continual.config import Config, EngineConfig, MetricsConfig, WandbConfig, check_config
from continual.errors import ConfigError

_PARTS = {"engine": EngineConfig, "metrics": MetricsConfig, "wandb": WandbConfig}


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
