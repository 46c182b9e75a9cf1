"""Which configuration of a sweep is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from continual.errors import DataError
from continual.identity import canonical
from continual.report.runs import Runs
from continual.reproduce.grid import Grid, Point

STEP_SIZE = "optimizer.lr"


@dataclass(frozen=True)
class Choice:
    """The best point of a grid.

    Attributes:
        point: its values.
        varied: those of them that the grid varies.
        total: its total average online accuracy, the mean over the sweep's seeds.
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
    """The point of largest total average online accuracy, averaged over `seeds`.

    Only points with a completed run for each of these seeds are eligible; runs with other seeds or
    values play no part. Of equal points (to 12 digits) the one with the smaller step size is chosen,
    then the one with the smaller other numbers, in the grid's order of keys.

    Raises DataError if no point is eligible.
    """
    keys = list(grid.values)
    totals: dict[str, dict[int, float]] = {}
    diverged: set[str] = set()
    for run in runs.runs.to_dict("records"):
        config = runs.configs[run["group"]].values
        name = canonical([config.get(key) for key in keys])
        if run["seed"] in seeds and run["status"] == "completed":
            totals.setdefault(name, {})[run["seed"]] = run["total_average_online_accuracy"]
        elif run["seed"] in seeds and run["status"] == "diverged":
            diverged.add(name)

    first = [key for key in keys if key == STEP_SIZE] + [key for key in keys if key != STEP_SIZE]
    candidates = []
    for point in grid.points:
        by_seed = totals.get(canonical([point[key] for key in keys]), {})
        if set(by_seed) == set(seeds):
            mean = sum(by_seed[seed] for seed in seeds) / len(seeds)
            order = [point[key] if isinstance(point[key], int | float) else 0 for key in first]
            candidates.append((-round(mean, 12), order, mean, point))
    if not candidates:
        raise DataError(
            f"none of the {len(grid.points)} configurations has a completed run for each of the seeds "
            f"{', '.join(map(str, seeds))}, so that none can be chosen; try smaller step sizes."
        )
    _, _, total, best = min(candidates, key=lambda candidate: candidate[:2])
    points = {canonical([point[key] for key in keys]) for point in grid.points}
    return Choice(best, grid.varied(best), total, len(candidates), len(diverged & points), grid.edges(best))
