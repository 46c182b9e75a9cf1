"""Numbers printed in papers (published.yaml), for the groups of runs with the same configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from continual.identity import canonical
from continual.report.configs import RunConfig
from continual.report.runs import Runs


@dataclass(frozen=True)
class Published:
    """An entry of published.yaml: where the numbers are from, the configuration, and the numbers.

    A config that does not have a key of `also` is of the time before there was a choice, and has its value.
    """

    source: str
    where: Mapping[str, Any]
    numbers: Mapping[str, float]
    also: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, config: RunConfig) -> bool:
        """Whether a run with this config is a repetition of the published one; null stands for no value."""
        values = {**config.values, **config.options}
        return all(
            canonical(values.get(key)) == canonical(value) for key, value in self.where.items()
        ) and all(canonical(values.get(key, value)) == canonical(value) for key, value in self.also.items())


@cache
def published() -> tuple[Published, ...]:
    """All entries of published.yaml."""
    text = resources.files("continual.report").joinpath("published.yaml").read_text(encoding="utf-8")
    entries: Any = yaml.safe_load(text)
    return tuple(Published(**entry) for entry in entries)


def published_beside(runs: Runs) -> dict[int, Published]:
    """The entry of each group of runs that has one."""
    return {
        group: entry
        for group, config in enumerate(runs.configs)
        for entry in published()
        if entry.matches(config)
    }
