"""Which configuration of a sweep is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from continual.errors import DataError
from continual.identity import canonical
from continual.report.choice import choose
from continual.report.runs import Runs
from continual.reproduce.grid import Grid, Point


@dataclass(frozen=True)
class Choice:
    """The best point of a grid.

    Attributes:
        point: its values.
        varied: those of them that the grid varies.
        total: its score, the mean over the sweep's seeds.
        eligible, diverged: how many points could be chosen, and how many could not as a run diverged.
        edges: the keys whose value is the grid's smallest or largest, so that a wider grid may do better.
    """

    point: Point
    varied: Point
    total: float
    eligible: int
    diverged: int
    edges: dict[str, str]


def select(runs: Runs, grid: Grid, seeds: Sequence[int]) -> Choice:
    """The point of the best score, averaged over `seeds`, by the report's rule (`report.choice.choose`).

    Only points with a completed run for each of these seeds are eligible; runs with other seeds or
    values play no part.

    Raises DataError if no point is eligible.
    """
    keys = list(grid.values)
    points = {canonical([point[key] for key in keys]): point for point in grid.points}
    point_of = {
        group: points[name]
        for group, config in enumerate(runs.configs)
        if (name := canonical([config.values.get(key) for key in keys])) in points
    }
    best = choose(runs, list(point_of), seeds)
    if best is None:
        raise DataError(
            f"none of the {len(points)} configurations has a completed run for each of the seeds "
            f"{', '.join(map(str, seeds))}, so that none can be chosen; try smaller step sizes."
        )
    point = point_of[best.group]
    value = best.value * runs.scores[best.group].sign
    return Choice(point, grid.varied(point), value, best.eligible, best.diverged, grid.edges(point))
