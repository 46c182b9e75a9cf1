"""The one number of a run that configurations are compared by, as its summary.json declares it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """What is compared, and whether more of it is better.

    `name` is the column of tasks.csv that the score is the mean of. Runs whose summary declares no score are
    compared by their total average online accuracy.
    """

    name: str = "online_accuracy"
    higher_is_better: bool = True

    @property
    def total(self) -> str:
        """What the mean is called, as a name."""
        if self == MIXED:
            return self.name
        return f"total_average_{self.name}" if self.name.startswith("online_") else f"average_{self.name}"

    @property
    def words(self) -> str:
        """What the mean is called, in a sentence."""
        return self.total.replace("_", " ")

    @property
    def heading(self) -> str:
        """What the mean is called, at the start of a line."""
        return self.words[:1].upper() + self.words[1:]

    @property
    def sign(self) -> int:
        """1 or -1: times the score, more is better."""
        return 1 if self.higher_is_better else -1

    @property
    def tested(self) -> str:
        """The column of tasks.csv with the same measure on the test images."""
        return self.name.replace("online_", "test_")


MIXED = Score("score")
"""Stands for the scores of runs that differ in what they are compared by."""


def score_of(summary: Mapping[str, Any]) -> tuple[Score, Any]:
    """The score that a summary.json declares, and its value as it stands there.

    None if there is no score (env.score=null) and no accuracy to take in its place.
    """
    if summary.get("score_name") is None:
        return Score(), summary.get("total_average_online_accuracy")
    name, higher_is_better = summary["score_name"], summary["higher_is_better"]
    if not isinstance(name, str) or not isinstance(higher_is_better, bool):
        raise ValueError(f"score_name {name!r}, higher_is_better {higher_is_better!r}")
    return Score(name.removeprefix("total_").removeprefix("average_"), higher_is_better), summary["score"]


def finite(value: Any) -> float:
    """A number as a float; ValueError if it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
