"""What a run was asked to do, read from its `.hydra` folder.

A folder may come from a stranger: its text is data. No resolver is called and nothing that it names is
imported; a value that points to another key of the same config is followed, any other `${...}` stays text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from continual.errors import DataError
from continual.identity import canonical, results_part, without_defaults

LARGEST = 20_000
"""More values than this are no config of a run; YAML's aliases can make billions from a few lines."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")


@dataclass(frozen=True)
class RunConfig:
    """The part of a run's config that decides its results.

    Attributes:
        values: dotted key to value, such as `agent.l2_weight`; without the seed and what changes no result.
        seed: the run's seed; None if its config has none.
        options: config group to the chosen option, such as `env/dataset` to `mnist`.
        overrides: what was given on the command line.
        at_default: the keys of `values` whose value is the default of this program's own class.
    """

    values: Mapping[str, Any]
    seed: int | None
    options: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    at_default: frozenset[str] = frozenset()

    @cached_property
    def identity(self) -> str:
        """Equal for two runs exactly if they differ in nothing but their seed."""
        return canonical({key: value for key, value in self.values.items() if key not in self.at_default})

    @property
    def overridden(self) -> frozenset[str]:
        """The keys and groups given on the command line."""
        return frozenset(override.split("=", 1)[0].lstrip("+~") for override in self.overrides)


def read_config(folder: Path) -> RunConfig:
    """Read `folder/.hydra`; only `config.yaml` has to be there. Raises DataError if damaged."""
    path = folder / ".hydra" / "config.yaml"
    config = _read_yaml(path)
    if not isinstance(config, dict):
        raise DataError(f"{path} is damaged: it holds no config.")
    hydra = _read_yaml(folder / ".hydra" / "hydra.yaml")
    overrides = _read_yaml(folder / ".hydra" / "overrides.yaml")

    part = results_part(config)
    seed = part.pop("seed", None)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise DataError(f"{path} is damaged: its seed is no integer.")
    try:
        part = _followed(part, part)
        values, at_default = flatten(part), keys_at_default(part)
    except RecursionError as error:
        raise DataError(f"{path} is damaged: its values hold themselves.") from error
    return RunConfig(
        values=values,
        seed=seed,
        options=_options(hydra, part),
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        at_default=at_default,
    )


def keys_at_default(config: Mapping[str, Any]) -> frozenset[str]:
    """The dotted keys whose value is the default of this program's own class."""
    return frozenset(flatten(config)) - frozenset(flatten(without_defaults(config)))


def flatten(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value, in the config's order; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def unflattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested config of dotted keys and their values: what `flatten` was given."""
    config: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return config


def node_path(group: str) -> str:
    """Where the options of a config group land in the config: `env/dataset` in `env.dataset`."""
    name, _, package = group.partition("@")
    return package or name.replace("/", ".")


def is_below(key: str, path: str) -> bool:
    """Whether a dotted key is `path` itself or lies inside it."""
    return key == path or key.startswith(f"{path}.")


def _read_yaml(path: Path) -> Any:
    """The content of a file, None if there is none; DataError if it is no YAML or not a config's size."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    for number, _ in enumerate(_nodes(content)):
        if number > LARGEST:
            raise DataError(f"{path} is damaged: it holds more than {LARGEST:,} values.")
    return content


def _nodes(content: Any) -> Iterator[Any]:
    """Everything in a content, as often as it is referred to."""
    pending = [content]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _options(hydra: Any, part: Mapping[str, Any]) -> dict[str, str]:
    """The chosen options of those config groups that have a place in the run's config."""
    try:
        choices = hydra["hydra"]["runtime"]["choices"].items()
    except (AttributeError, KeyError, TypeError):
        return {}
    keys = list(flatten(part))
    return {
        group: option
        for group, option in choices
        if isinstance(group, str)
        and isinstance(option, str)
        and any(is_below(key, node_path(group)) for key in keys)
    }


def _followed(node: Any, config: Mapping[str, Any], steps: int = 20) -> Any:
    """The node with each value that is a `${key}` of this config replaced by what it points to."""
    if isinstance(node, dict):
        return {name: _followed(inner, config, steps) for name, inner in node.items()}
    if isinstance(node, list):
        return [_followed(inner, config, steps) for inner in node]
    reference = _REFERENCE.fullmatch(node) if isinstance(node, str) and steps else None
    if reference is None:
        return node
    found: Any = config
    for name in reference[1].split("."):
        if not isinstance(found, dict) or name not in found:
            return node
        found = found[name]
    return _followed(found, config, steps - 1)
