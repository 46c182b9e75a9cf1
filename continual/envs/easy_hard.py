"""Hard and easy tasks in turn, each with classes of its own (5+1 CIFAR)."""

from dataclasses import dataclass

from torch import Tensor

from continual.envs.disjoint_classes import DisjointClasses
from continual.schema import Count


@dataclass(frozen=True, kw_only=True)
class EasyHard(DisjointClasses):
    """Even tasks are hard, odd ones easy: `hard_classes` and `easy_classes` say how many classes each has.

    Classes keep the dataset's labels, and the network has an output for each of them, of which none is
    masked. Easy tasks are for forgetting what hard ones need: only hard ones are scored.
    """

    hard_classes: Count
    easy_classes: Count

    def classes_of(self, task: int) -> int:
        return self.hard_classes if self.is_scored(task) else self.easy_classes

    def labels_of(self, classes: Tensor) -> Tensor:
        return classes

    @classmethod
    def task_type(cls, task: int) -> str:
        return "hard" if task % 2 == 0 else "easy"

    @classmethod
    def is_scored(cls, task: int) -> bool:
        return cls.task_type(task) == "hard"
