"""The score of a run so far, after each of its tasks, known from its config and its rows alone."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from continual import schema
from continual.identity import OWN_TARGETS

if TYPE_CHECKING:
    from continual.envs.environment import Environment


def running_scores(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The mean over the scored tasks up to each row of `tasks.csv`; None before the first of them.

    A config may be a stranger's: what it names is imported only if it is this program's own. The runs of
    other environments have no scores here, unless they are loaded already.
    """
    target = str(config["env"].get("_target_"))
    if not target.startswith(OWN_TARGETS) and target.rpartition(".")[0] not in sys.modules:
        return [None] * len(rows)
    environment = cast("type[Environment]", schema.locate(target))
    scored: list[float] = []
    scores: list[float | None] = []
    for row in rows:
        if environment.is_scored(row["task"]):
            scored.append(float(row["online_accuracy"]))
        scores.append(math.fsum(scored) / len(scored) if scored else None)
    return scores
