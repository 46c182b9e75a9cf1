"""New classes: each task is to tell apart classes that were never seen before (Continual ImageNet)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.envs.disjoint_classes import DisjointClasses
from continual.schema import Count


@dataclass(frozen=True)
class NewClasses(DisjointClasses):
    """`classes_per_task` classes in each task, which calls them 0, 1, ...: all tasks use the same outputs."""

    classes_per_task: Count

    @property
    def num_classes(self) -> int:
        return self.classes_per_task

    def classes_of(self, task: int) -> int:
        return self.classes_per_task

    def labels_of(self, classes: Tensor) -> Tensor:
        return torch.arange(len(classes), device=classes.device)
