"""The grid of a sweep: which values each key takes."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.cli.grammar import read_settings
from continual.errors import ConfigError

Point = Mapping[str, Any]
"""A value for each key of a grid."""


@dataclass(frozen=True)
class Grid:
    """All combinations of some values for each of some config keys."""

    values: Mapping[str, Sequence[Any]]

    @property
    def points(self) -> list[Point]:
        """All combinations, the first key varying slowest."""
        return [
            dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())
        ]

    def edges(self, point: Point) -> dict[str, str]:
        """The keys whose value in `point` is the grid's "smallest" or "largest".

        Zero is no edge: nothing in these grids can be below it. Nor are keys with a single value.
        """
        found = {}
        for key, values in self.values.items():
            if len(values) < 2 or not all(_is_number(value) for value in values) or point[key] == 0:
                continue
            if point[key] in (min(values), max(values)):
                found[key] = "smallest" if point[key] == min(values) else "largest"
        return found

    @property
    def naming(self) -> list[str]:
        """The keys that name a configuration's folder: those of numbers, and of texts that vary."""
        return [
            key for key, values in self.values.items() if len(values) > 1 or not isinstance(values[0], str)
        ]

    def varied(self, point: Point) -> Point:
        """The part of `point` in which it may differ from the grid's other points; of a single one all."""
        return {key: point[key] for key, values in self.values.items() if len(values) > 1} or point

    def beyond(self, key: str, edge: str) -> Any | None:
        """The next value outside an edge, in the ratio of the last two; None where they have none."""
        ordered = sorted(self.values[key], reverse=edge == "smallest")
        last, before = ordered[-1], ordered[-2]
        if not before or not last:
            return None
        value = float(f"{last * last / before:.12g}")
        return max(1, round(value)) if isinstance(last, int) else value

    def with_value(self, key: str, value: Any) -> "Grid":
        """This grid with one more value for a key."""
        return Grid({**self.values, key: [*self.values[key], value]})


def from_sweeper(params: Mapping[str, Any], replaced: Mapping[str, Sequence[Any]]) -> Grid:
    """The grid that the sweeper's parameters describe, without the seed.

    `replaced` gives other values for keys, named in full or by their last part (`l2_weight`).
    """
    values: dict[str, Sequence[Any]] = {}
    for key, text in params.items():
        if key == "seed":
            continue
        (listed,) = read_settings([f"{key}={text}"])
        other = replaced.get(key, replaced.get(key.rpartition(".")[2]))
        values[key] = (listed.value if listed.several else [listed.value]) if other is None else list(other)
        if not values[key] or len(set(values[key])) < len(values[key]):
            raise ConfigError(f"grid.{key.rpartition('.')[2]}: give one or more values, none of them twice.")
    return Grid(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
