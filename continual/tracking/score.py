"""The score of a run so far, after each of its tasks, known from its config and its rows alone."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from continual import schema

if TYPE_CHECKING:
    from continual.envs.environment import Environment


def running_scores(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The mean over the scored tasks up to each row of `tasks.csv`; None before the first of them."""
    environment = cast("type[Environment]", schema.locate(config["env"]["_target_"]))
    scored: list[float] = []
    scores: list[float | None] = []
    for row in rows:
        if environment.is_scored(row["task"]):
            scored.append(float(row["online_accuracy"]))
        scores.append(math.fsum(scored) / len(scored) if scored else None)
    return scores
