"""New classes: each task is to tell apart other classes (Continual ImageNet)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from continual import random
from continual.envs.disjoint_classes import DisjointClasses
from continual.errors import ConfigError
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class NewClasses(DisjointClasses):
    """`classes_per_task` classes in each task, which calls them 0, 1, ...: all tasks use the same outputs.

    `reuse` says what follows when all classes were used: `never` nothing, so that a class is in one task
    only; `same_order` the same tasks again (Dohare et al. 2024); `new_order` the classes in an order drawn
    anew.
    """

    classes_per_task: Count
    reuse: Literal["never", "same_order", "new_order"] = "never"

    @property
    def num_classes(self) -> int:
        return self.classes_per_task

    def check_classes(self) -> None:
        if self.reuse == "never":
            super().check_classes()
        elif self.classes_per_task > self.dataset.num_classes:
            raise ConfigError(
                f"env.classes_per_task: {self.classes_per_task} is more than the dataset's "
                f"{self.dataset.num_classes} classes."
            )

    def classes_of(self, task: int) -> int:
        return self.classes_per_task

    def drawn_classes(self, drawn: Tree, key: Tensor, task: int) -> Tensor:
        tasks_in_a_pass = self.dataset.num_classes // self.classes_per_task
        again, place = divmod(task, tasks_in_a_pass)
        order = drawn["classes"]
        if again and self.reuse == "new_order":
            order = random.permutation(random.fold(random.stream(key, "classes"), again), len(order))
        first = place * self.classes_per_task
        classes: Tensor = order[first : first + self.classes_per_task]
        return classes

    def labels_of(self, classes: Tensor) -> Tensor:
        return torch.arange(len(classes), device=classes.device)
