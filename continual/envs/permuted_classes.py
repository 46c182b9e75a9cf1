"""Permuted classes: each task calls the classes by each other's names (Elsayed & Mahmood 2024)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual import random
from continual.envs.environment import Task
from continual.envs.sampled import TestedImages
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class PermutedClasses(TestedImages):
    """The label y of every image becomes pi(y), pi a permutation of the classes drawn anew for each task.

    Images of one class keep a name in common, unlike those of `RandomLabels`. `resample_images: true` draws
    fresh images for each task, so that none comes twice within it; `permute_first` says whether the classes
    of task 0 are permuted too. A task is tested on up to `test_samples` of the dataset's test images, named
    alike.
    """

    test_samples: Count = 1000
    resample_images: bool = True
    permute_first: bool = True

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        rows = self.rows(drawn, key, task)
        names = random.permutation(random.fold(random.stream(key, "classes"), task), self.num_classes)
        if task == 0 and not self.permute_first:
            names = torch.arange(self.num_classes, device=key.device)
        test_rows = drawn["test_rows"]
        return {
            "rows": rows,
            "labels": names[self.dataset.y_train[rows]],
            "test_rows": test_rows,
            "test_labels": names[self.dataset.y_test[test_rows]],
        }

    def test_size(self, task: int) -> int:
        return min(self.test_samples, len(self.dataset.x_test))
