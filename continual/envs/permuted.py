"""Permuted images: each task permutes the input pixels in its own way (Permuted MNIST)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual import random
from continual.envs.environment import Task
from continual.envs.sampled import TestedImages
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class PermutedImages(TestedImages):
    """The same images and labels in every task, their pixels in another order.

    The test images of a task (up to `test_samples` of the dataset's) are permuted alike.
    """

    test_samples: Count = 1000
    resample_images: bool = False
    permute_first: bool = False

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        rows = self.rows(drawn, key, task)
        pixels = self.dataset.x_train[0].numel()
        if task == 0 and not self.permute_first:
            permutation = torch.arange(pixels, device=key.device)
        else:
            permutation = random.permutation(random.fold(random.stream(key, "permutation"), task), pixels)
        labels = self.dataset.y_train[rows]
        test_labels = self.dataset.y_test[drawn["test_rows"]]
        return {
            "rows": rows,
            "labels": labels,
            "test_rows": drawn["test_rows"],
            "test_labels": test_labels,
            "permutation": permutation,
        }

    def test_size(self, task: int) -> int:
        return min(self.test_samples, len(self.dataset.x_test))
