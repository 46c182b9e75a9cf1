"""What a run was asked to do, read from its `.hydra` folder and made comparable."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from continual.errors import DataError
from continual.identity import canonical

IGNORED_KEYS = frozenset({"device", "data_dir", "engine", "wandb"})
"""Top-level config keys that do not change results, but for LATER_KEYS."""
WHERE_DATA_COME_FROM = frozenset(f"env.dataset.{key}" for key in ("data_dir", "download", "verify"))
"""Keys that say where the same data come from."""
LATER_KEYS = {"engine.precision": "float32"}
"""Keys that do change results, and what holds for runs that were written before there was such a key."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunConfig:
    """The part of a run's config that decides its results.

    Attributes:
        values: dotted key to value, such as `agent.l2_weight`; without the seed and what changes no result.
        seed: the run's seed; None if its config has none.
        options: config group to the chosen option, such as `env/dataset` to `mnist`.
        overridden: the keys and groups given on the command line.
    """

    values: Mapping[str, Any]
    seed: Any
    options: Mapping[str, str]
    overridden: frozenset[str]

    @property
    def identity(self) -> str:
        """Equal for two runs exactly if they differ in nothing but their seed."""
        return canonical(self.values)


def read_config(folder: Path) -> RunConfig:
    """Read `folder/.hydra`; only `config.yaml` has to be there. Raises DataError if damaged."""
    config = _read_yaml(folder / ".hydra" / "config.yaml")
    if not isinstance(config, dict):
        raise DataError(f"{folder / '.hydra' / 'config.yaml'} is damaged: it holds no config.")
    hydra = _read_yaml(folder / ".hydra" / "hydra.yaml")
    overrides = _read_yaml(folder / ".hydra" / "overrides.yaml")

    seed = config.pop("seed", None)
    whole = _flatten(config)
    config = {key: value for key, value in config.items() if key not in IGNORED_KEYS}
    values = {
        key: value
        for key, value in _resolved(config, _flatten(config)).items()
        if key not in WHERE_DATA_COME_FROM
    }
    return RunConfig(
        values=values | {key: whole.get(key, before) for key, before in LATER_KEYS.items()},
        seed=seed,
        options=_options(hydra, config),
        overridden=frozenset(str(override).split("=", 1)[0].lstrip("+~") for override in overrides or ()),
    )


def node_path(group: str) -> str:
    """Where the options of a config group land in the config: `env/dataset` in `env.dataset`."""
    name, _, package = group.partition("@")
    return package or name.replace("/", ".")


def is_below(key: str, path: str) -> bool:
    """Whether a dotted key is `path` itself or lies inside it."""
    return key == path or key.startswith(f"{path}.")


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _options(hydra: Any, config: Mapping[str, Any]) -> dict[str, str]:
    """The chosen options of those config groups that have a place in the run's config."""
    try:
        choices = hydra["hydra"]["runtime"]["choices"].items()
    except (AttributeError, KeyError, TypeError):
        return {}
    keys = list(_flatten(config))
    return {
        group: option
        for group, option in choices
        if isinstance(option, str) and any(is_below(key, node_path(group)) for key in keys)
    }


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value, in the config's order; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _resolved(config: dict[str, Any], flat: dict[str, Any]) -> dict[str, Any]:
    """Replace interpolations by what they point to.

    One that points to an ignored key (`${data_dir}`), or needs a resolver that only a run has,
    stays the text it is: equal texts mean equal configs.
    """
    pending = [key for key, value in flat.items() if "${" in str(value)]
    if not pending:
        return flat
    node = OmegaConf.create(config)
    for key in pending:
        try:
            value = OmegaConf.select(node, key, throw_on_missing=True)
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException:
            continue
        flat[key] = value
    return flat
