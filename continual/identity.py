"""The one truth about what a run is: which part of its config decides its results, and when two are equal.

Two values are equal if their field's declared type cannot tell them apart: 1 and 1.0 are, 1 and true are not.
A key of this program's own classes that is absent has its default, so that an option which is added later
does not change what earlier runs are. What a config names is looked up only if it is this program's own: a
config may come from a stranger's folder, and an import runs code.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from continual import schema

Config = Mapping[str, Any]

OWN_TARGETS = "continual."
"""The beginning of the `_target_`s that are this program's own."""

_WITHOUT_EFFECT = ("device", "data_dir", "engine", "wandb", "notes")  # but for _EFFECTIVE
_EFFECTIVE = {"engine": {"precision": "float32"}}  # with the values of runs from before there was a choice
_WHERE_DATA_COME_FROM = ("data_dir", "download", "verify")


def results_part(config: Config) -> dict[str, Any]:
    """The part of a config that decides the results of its run, its values as they are."""
    part = {name: node for name, node in config.items() if name not in _WITHOUT_EFFECT}
    env = _mapping(config.get("env"))
    if "dataset" in env:
        dataset = _mapping(env["dataset"])
        named = {name: value for name, value in dataset.items() if name not in _WHERE_DATA_COME_FROM}
        part["env"] = {**env, "dataset": named}
    for name, before in _EFFECTIVE.items():
        given = _mapping(config.get(name))
        part[name] = {key: given.get(key, value) for key, value in before.items()}
    return part


def canonical(value: Any) -> str:
    """A text that is equal for equal values, and only for those; a config's keys may be in any order."""
    return _text(_canonical(value))


def config_hash(config: Config) -> str:
    """A short name, 16 hexadecimal digits, for the part of a config that decides results."""
    return hashlib.sha256(canonical(results_part(config)).encode()).hexdigest()[:16]


def is_extendable(config: Config) -> bool:
    """Whether a run with fewer tasks is the beginning of this one: no task depends on how many there are."""
    target = _mapping(config.get("env")).get("_target_")
    try:
        return bool(schema.locate(str(target)).tasks_depend_on_their_number is False)  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return False


def resume_hash(config: Config) -> str:
    """As `config_hash`, but equal for runs of which one continues the other with more tasks."""
    part = results_part(config)
    if is_extendable(config):
        part["env"] = {name: value for name, value in part["env"].items() if name != "num_tasks"}
    return hashlib.sha256(canonical(part).encode()).hexdigest()[:16]


def obstacles(saved: Config, asked: Config) -> list[str]:
    """The dotted names of what keeps a run of one config from being resumed as one of another.

    It may have more tasks than it had, where no task depends on their number.
    """
    differing = differing_keys(results_part(saved), results_part(asked))
    before, now = (_mapping(of.get("env")).get("num_tasks") for of in (saved, asked))
    if isinstance(before, int) and isinstance(now, int) and now > before and is_extendable(asked):
        differing = [name for name in differing if name != "env.num_tasks"]
    return differing


def structure(config: Config) -> str:
    """What replicas must share to be one population: all but the seed, W&B and per-replica numbers."""
    shared = {name: node for name, node in config.items() if name not in ("seed", "wandb", "notes")}
    for part in ("agent", "optimizer"):
        shared[part] = _without_numbers(config[part])
    return canonical(shared)


def _without_numbers(node: Config) -> dict[str, Any]:
    fields = schema.number_fields(schema.locate(node["_target_"]))
    shared: dict[str, Any] = {}
    for name, value in node.items():
        if number := fields.get(name):
            shared[name] = "off" if number.zero_is_off and value == 0 else "per replica"
        else:
            shared[name] = _without_numbers(value) if schema.is_node(value) else value
    return shared


def differing_keys(one: Config, other: Config) -> list[str]:
    """The dotted names of the leaves in which two configs, or parts of configs, are not equal."""
    return _differing(_canonical(one), _canonical(other), "")


def _differing(one: Config, other: Config, path: str) -> list[str]:
    found = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differing(a, b, f"{path}{name}.")
        elif _text(a) != _text(b):
            found.append(f"{path}{name}")
    return found


def without_defaults(config: Config) -> dict[str, Any]:
    """A config, or a part of one, less what is at the default of this program's own classes."""
    defaults = _defaults(config)
    kept = {
        name: without_defaults(node) if isinstance(node, Mapping) else node for name, node in config.items()
    }
    return {name: node for name, node in kept.items() if canonical(node) != defaults.get(name)}


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _canonical(node) for name, node in without_defaults(value).items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        # A float holds integers exactly up to 2^53: beyond, an integer stays one.
        return float(value) if abs(value) <= 2**53 else value
    return value


def _text(canonical: Any) -> str:
    return json.dumps(canonical, sort_keys=True, default=str)


def _defaults(node: Config) -> dict[str, str]:
    """The defaults, as canonical texts, of what a node configures, if that is this program's own."""
    target = node.get("_target_")
    if not (isinstance(target, str) and target.startswith(OWN_TARGETS)):
        return {}
    try:
        defaults = schema.defaults(schema.locate(target))
    # Of another version of this program, or nothing that can be configured.
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}
    return {name: canonical(value) for name, value in defaults.items()}


def _mapping(node: Any) -> Config:
    return node if isinstance(node, Mapping) else {}
