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


class RunningScore:
    """The score of a run so far, as its rows come; None before the first scored task.

    A config may be a stranger's: what it names is imported only if it is this program's own. The runs of
    other environments have no scores here, unless they are loaded already.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        target = str(config["env"].get("_target_"))
        is_known = target.startswith(OWN_TARGETS) or target.rpartition(".")[0] in sys.modules
        self._environment = _environment(config) if is_known else None
        self._score = declared_score(config) if is_known else None
        self._sum = self._weight = 0.0
        self._steps = 0

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the score is better."""
        return self._score is None or self._score.higher_is_better

    def add(self, row: Mapping[str, Any]) -> float | None:
        """The score with one more row of `tasks.csv`."""
        steps, self._steps = row["step"] - self._steps, row["step"]
        if self._environment and self._score and self._environment.is_scored(row["task"]):
            value = row.get(self._score.column)
            if isinstance(value, int | float):
                weight = steps if self._score.is_online else 1
                self._sum += weight * value
                self._weight += weight
        return self._sum / self._weight if self._weight else None


def _environment(config: Mapping[str, Any]) -> "type[Environment]":
    return cast("type[Environment]", schema.locate(config["env"]["_target_"]))
