"""Which runs belong together, and what tells the groups apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from continual.errors import ConfigError
from continual.identity import canonical
from continual.report.configs import RunConfig, is_below, node_path

ABSENT = "-"
"""Stands for the value of a key that a group's config does not have."""


@dataclass(frozen=True)
class Grouping:
    """Runs that differ in nothing but their seed, as groups.

    Attributes:
        members: the group of each run, as an index into `groups`.
        groups: for each group the value of every key in `keys`, ABSENT where it has none.
        keys: what differs between groups: option names first (the environment's, the agent's, then
            the others), then config keys (`optimizer.lr`). The `_target_` that an option stands
            for is left out.
        shown: those of `keys` that suffice to tell the groups apart: without the values that
            follow from an option's name and that nobody gave on the command line.
        common: the options that all runs share.
    """

    members: list[int]
    groups: list[dict[str, Any]]
    keys: list[str]
    shown: list[str]
    common: dict[str, str]


def group_runs(configs: Sequence[RunConfig]) -> Grouping:
    """Group runs by everything in their configs but the seed; needs at least one."""
    identities = [config.identity for config in configs]
    runs_of: dict[str, list[RunConfig]] = {identity: [] for identity in identities}
    for identity, config in zip(identities, configs, strict=True):
        runs_of[identity].append(config)

    values = _with_defaults([members[0] for members in runs_of.values()], configs)
    differing = _differing(values)
    options = [_merged_options(members) for members in runs_of.values()]
    labels = [group for group in _differing(options) if any(_may_come_from(group, key) for key in differing)]
    labels.sort(key=_place)
    common = {
        group: options[0][group]
        for group in sorted(options[0], key=_place)
        if all(other.get(group) == options[0][group] for other in options)
    }
    if not differing and "agent" in common:
        labels = ["agent"]
        del common["agent"]

    rows = [{**value, **option} for value, option in zip(values, options, strict=True)]
    overridden = frozenset().union(*(config.overridden for config in configs))
    targets = {f"{node_path(group)}._target_" for group in labels}
    keys = labels + [
        key for key in differing if key not in labels and not (key in targets and _follows(key, labels, rows))
    ]
    shown = [key for key in keys if key in overridden or not _follows(key, labels, rows)]

    order = sorted(range(len(rows)), key=lambda row: [rank(rows[row].get(key, ABSENT)) for key in keys])
    names = list(runs_of)
    position = {names[row]: place for place, row in enumerate(order)}
    return Grouping(
        members=[position[identity] for identity in identities],
        groups=[{key: rows[row].get(key, ABSENT) for key in keys} for row in order],
        keys=keys,
        shown=shown,
        common=common,
    )


def grouped_by(grouping: Grouping, configs: Sequence[RunConfig], by: Sequence[str]) -> Grouping:
    """The same groups, told apart by the keys in `by` alone; `configs` is one config per group.

    Raises ConfigError if a key is not in any config, or if groups that differ in other keys would
    become one.
    """
    rows = [{**config.values, **config.options} for config in configs]
    for key in by:
        if not any(key in row for row in rows):
            known = ", ".join(grouping.keys) or "nothing"
            raise ConfigError(f"--by {key}: no run has such a key; these runs differ in {known}.")
    alike: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        alike.setdefault(canonical([row.get(key, ABSENT) for key in by]), []).append(place)
    merged = [places for places in alike.values() if len(places) > 1]
    if merged:
        lost = dict.fromkeys(key for p in merged for key in _differing([grouping.groups[i] for i in p]))
        raise ConfigError(
            f"--by {','.join(by)} would average over runs that differ in {', '.join(lost)}; "
            "only runs that differ in nothing but their seed are averaged, so add these keys to --by "
            "or report on fewer runs."
        )
    groups = [
        {**{key: row.get(key, ABSENT) for key in by}, **group}
        for row, group in zip(rows, grouping.groups, strict=True)
    ]
    return replace(grouping, groups=groups, keys=list(dict.fromkeys([*by, *grouping.keys])), shown=list(by))


def _with_defaults(configs: Sequence[RunConfig], known: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """The configs' values; one from before there was an option has the default that `known` have."""
    defaults: dict[tuple[str, str, str], Any] = {}
    for config in known:
        for key in config.at_default:
            node = key.rpartition(".")[0]
            defaults[node, str(config.values.get(f"{node}._target_")), key] = config.values[key]
    return [
        {
            **{
                key: value
                for (node, target, key), value in defaults.items()
                if str(config.values.get(f"{node}._target_")) == target
            },
            **config.values,
        }
        for config in configs
    ]


def _differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that are absent from some rows or have several values, in order of appearance."""
    return [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if len({canonical(row[key]) if key in row else None for row in rows}) > 1
    ]


def _merged_options(members: Iterable[RunConfig]) -> dict[str, str]:
    """The options of one group; two names for the same config become one label."""
    names: dict[str, set[str]] = {}
    for config in members:
        for group, option in config.options.items():
            names.setdefault(group, set()).add(option)
    return {group: " or ".join(sorted(options)) for group, options in names.items()}


def _place(group: str) -> tuple[bool, bool]:
    """Where an option's name stands: the environment's first, then the agent's, then the others."""
    return not is_below(node_path(group), "env"), group != "agent"


def _may_come_from(group: str, key: str) -> bool:
    """Whether a group's option can set this key: its own node's, or an agent the network's (agent=crelu)."""
    return is_below(key, node_path(group)) or (group == "agent" and is_below(key, "network"))


def _follows(key: str, labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key that an option can set has a single value for each of the option's names."""
    for label in labels:
        if key == label or not _may_come_from(label, node_path(key)):
            continue
        pairs = {(row.get(label), canonical(row.get(key, ABSENT))) for row in rows}
        if len(pairs) == len({name for name, _ in pairs}):
            return True
    return False


def rank(value: Any) -> tuple[int, float, str]:
    """Sort absent values first, then numbers by size, then everything else as text."""
    if value == ABSENT:
        return 0, 0.0, ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1, float(value), ""
    return 2, 0.0, str(value)
