"""The score of a run, known from its config and its rows alone."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from continual import schema
from continual.identity import OWN_TARGETS
from continual.scoring import Score

if TYPE_CHECKING:
    from continual.envs.environment import Environment

ONLINE_ACCURACY = Score("online_accuracy", higher_is_better=True)

_Rows = Sequence[Mapping[str, Any]]


def declared_score(config: Mapping[str, Any]) -> Score | None:
    """What runs of this config are compared by; None if their environment has no score."""
    return _environment(config).declared_score(config["env"])


def score_of(config: Mapping[str, Any], rows: _Rows, score: Score | None) -> float | None:
    """The mean of the score's column over the scored tasks in the rows of `tasks.csv`.

    Online measures are means over steps: longer tasks count for more. None if no task is scored, if no row
    has the column, or if there is no score.
    """
    environment = _environment(config)
    values, weights = [], []
    before = 0
    for row in rows:
        steps, before = row["step"] - before, row["step"]
        if score is not None and score.column in row and environment.is_scored(row["task"]):
            values.append(float(row[score.column]))
            weights.append(steps if score.is_online else 1)
    if not values:
        return None
    if len(set(weights)) == 1:
        return math.fsum(values) / len(values)
    weighted = math.fsum(weight * value for weight, value in zip(weights, values, strict=True))
    return weighted / sum(weights)


def measure_of(config: Mapping[str, Any]) -> str:
    """What the loss of this config's environment is measured by, such as accuracy."""
    return _environment(config).loss.measure


def running_scores(config: Mapping[str, Any], rows: _Rows) -> list[float | None]:
    """The score of a run so far, after each row of `tasks.csv`; None before the first scored task.

    A config may be a stranger's: what it names is imported only if it is this program's own. The runs of
    other environments have no scores here, unless they are loaded already.
    """
    target = str(config["env"].get("_target_"))
    if not target.startswith(OWN_TARGETS) and target.rpartition(".")[0] not in sys.modules:
        return [None] * len(rows)
    score = declared_score(config)
    return [score_of(config, rows[: i + 1], score) for i in range(len(rows))]


def _environment(config: Mapping[str, Any]) -> "type[Environment]":
    return cast("type[Environment]", schema.locate(config["env"]["_target_"]))
