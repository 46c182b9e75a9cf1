"""What environments share whose tasks have classes of their own: a class never occurs in two tasks."""

import functools
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from continual import random
from continual.envs.environment import EqualTasks, Task
from continual.envs.image_tasks import ImageTasks
from continual.errors import ConfigError
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class DisjointClasses(ImageTasks, EqualTasks):
    """The classes come in a random order, and each task takes the next ones.

    Of each it has `samples_per_class` training images, and `test_samples_per_class` test images to be tested
    on. Tasks with fewer classes than others are padded at the end.
    """

    samples_per_class: Count
    test_samples_per_class: Count

    def __post_init__(self) -> None:
        self.check_classes()
        self._train.check(self.samples_per_class, "env.samples_per_class", "training")
        self._test.check(self.test_samples_per_class, "env.test_samples_per_class", "test")
        self.check_batch_size("env.samples_per_class for each class")

    def check_classes(self) -> None:
        """ConfigError if the dataset has too few classes for the tasks."""
        needed = 0
        for task in range(self.num_tasks):
            needed += self.classes_of(task)
            if needed > self.dataset.num_classes:
                raise ConfigError(
                    f"env.num_tasks: {self.num_tasks} tasks without a common class need more classes than "
                    f"the dataset's {self.dataset.num_classes}; at most {task} tasks are possible."
                )

    @abstractmethod
    def classes_of(self, task: int) -> int:
        """How many classes this task has."""

    @abstractmethod
    def labels_of(self, classes: Tensor) -> Tensor:
        """The labels of a task's classes (the dataset's labels, int64 [n]): int64 [n]."""

    def drawn_classes(self, drawn: Tree, key: Tensor, task: int) -> Tensor:
        """A task's classes, by the dataset's labels: int64 [n]."""
        first = sum(self.classes_of(earlier) for earlier in range(task))
        classes: Tensor = drawn["classes"][first : first + self.classes_of(task)]
        return classes

    def task_size(self, task: int) -> int:
        return self.classes_of(task) * self.samples_per_class

    def test_size(self, task: int) -> int:
        return self.classes_of(task) * self.test_samples_per_class

    def draw_stream(self, key: Tensor) -> Tree:
        return {"classes": random.permutation(random.stream(key, "classes"), self.dataset.num_classes)}

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        classes = self.drawn_classes(drawn, key, task)
        labels = self.labels_of(classes)
        rows = self._train.draw(random.stream(key, "images"), classes, self.samples_per_class)
        test_rows = self._test.draw(random.stream(key, "test images"), classes, self.test_samples_per_class)
        most = max(self.classes_of(each) for each in range(self.num_tasks))
        samples, test_samples = most * self.samples_per_class, most * self.test_samples_per_class
        return {
            "rows": _padded(rows, samples),
            "labels": _padded(labels.repeat_interleave(self.samples_per_class), samples),
            "test_rows": _padded(test_rows, test_samples),
            "test_labels": _padded(labels.repeat_interleave(self.test_samples_per_class), test_samples),
        }

    @functools.cached_property
    def _train(self) -> "_RowsByClass":
        return _RowsByClass.of(self.dataset.y_train, self.dataset.num_classes)

    @functools.cached_property
    def _test(self) -> "_RowsByClass":
        return _RowsByClass.of(self.dataset.y_test, self.dataset.num_classes)


@dataclass(frozen=True)
class _RowsByClass:
    """The rows of the images, sorted by class; where each class begins, and how many images it has."""

    rows_N: Tensor
    first_K: Tensor
    count_K: Tensor
    largest: int

    @classmethod
    def of(cls, labels_N: Tensor, num_classes: int) -> "_RowsByClass":
        count_K = labels_N.bincount(minlength=num_classes)
        first_K = count_K.cumsum(0) - count_K
        return cls(labels_N.argsort(stable=True), first_K, count_K, int(count_K.max()))

    def check(self, samples: int, key: str, kind: str) -> None:
        """ConfigError, naming the key, if a class has fewer images than these."""
        fewest, of_class = int(self.count_K.min()), int(self.count_K.argmin())
        if fewest == 0:
            raise ConfigError(
                f"{key}: class {of_class} has no {kind} image in the dataset; each of its "
                f"{len(self.count_K)} classes needs some."
            )
        if samples > fewest:
            raise ConfigError(
                f"{key}: {samples} is more than the {fewest} {kind} images of class {of_class} in the "
                f"dataset; at most {fewest} is possible."
            )

    def draw(self, key: Tensor, classes: Tensor, samples: int) -> Tensor:
        """A random subset of so many images of each class, class by class: rows, int64 [n * samples]."""

        def of_class(k: Tensor) -> Tensor:
            place = torch.arange(self.largest, device=key.device)
            drawn = random.bits(random.fold(key, k), self.largest).to(torch.int64)
            order = torch.where(place < self.count_K[k], drawn, torch.iinfo(torch.int64).max).argsort()
            return self.rows_N[self.first_K[k] + order[:samples]]

        return vmap(of_class)(classes).flatten()


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.cat([values, values.new_zeros(length - len(values))])
