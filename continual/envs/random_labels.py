"""Random labels: each task names the same images anew (Random Label MNIST and CIFAR)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from continual import random
from continual.envs.environment import Task
from continual.envs.sampled import SampledImages
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class RandomLabels(SampledImages):
    """One subset of the images for all tasks; a task is learnt by memorising its labels.

    `labels`: "uniform" draws a label for each image; "permuted" shuffles the true labels among them. There
    is nothing to generalise to, so a task is tested on its training images.
    """

    labels: Literal["uniform", "permuted"] = "uniform"

    def draw_stream(self, key: Tensor) -> Tree:
        return {"rows": self.sample(random.stream(key, "images"))}

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        rows = drawn["rows"]
        label_key = random.fold(random.stream(key, "labels"), task)
        if self.labels == "uniform":
            labels = random.integers(label_key, self.samples_per_task, self.num_classes)
        else:
            order = random.permutation(label_key, self.samples_per_task)
            labels = self.dataset.y_train[rows][order]
        return {"rows": rows, "labels": labels}
