"""Growing data: one problem whose training data come in stages (warm start; Ash & Adams 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le, MinLen
from torch import Tensor

from continual import random
from continual.envs.environment import Task
from continual.envs.image_tasks import ImageTasks
from continual.errors import ConfigError
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class GrowingData(ImageTasks):
    """Task i has the first `samples[i]` training images of a random order, and `epochs[i]` epochs of them.

    With `images: newest` it has only those that the task before did not have. `epochs` and `wrong_labels`
    are one number for all tasks or one for each. Of task i, a fraction `wrong_labels[i]` of the images has
    another class's label, always the same one; an image that is wrong with some fraction is wrong with any
    larger one. The last batch of an epoch holds what is left. Every task is tested on `test_samples` of the
    test images, all of them if it is None.
    """

    has_partial_batches: ClassVar[bool] = True
    tasks_depend_on_their_number: ClassVar[bool] = True

    samples: Annotated[list[Count], MinLen(1)]
    epochs: Count | list[Count]
    images: Literal["all", "newest"] = "all"
    wrong_labels: Annotated[float, Ge(0), Le(1)] | list[Annotated[float, Ge(0), Le(1)]] = 0.0
    test_samples: Count | None = None

    def __post_init__(self) -> None:
        for name, values in (
            ("samples", self.samples),
            ("epochs", self.epochs),
            ("wrong_labels", self.wrong_labels),
        ):
            if isinstance(values, list) and len(values) != self.num_tasks:
                raise ConfigError(
                    f"env.{name}: {len(values)} values are given for {self.num_tasks} tasks; "
                    "give one for each."
                )
        if sorted(set(self.samples)) != self.samples:
            raise ConfigError(f"env.samples: {self.samples} does not grow from task to task.")
        available = len(self.dataset.x_train)
        if self.samples[-1] > available:
            raise ConfigError(
                f"env.samples: {self.samples[-1]} is more than the dataset's {available} training images; "
                f"at most {available} is possible."
            )
        if self.wrong_labels != 0 and self.dataset.num_classes < 2:
            raise ConfigError("env.wrong_labels: a dataset with one class has no wrong label.")

    @classmethod
    def num_steps(cls, settings: Mapping[str, Any], tasks: int | None = None) -> int:
        samples, newest = settings["samples"], settings.get("images") == "newest"
        epochs = _for_each(settings["epochs"], len(samples))
        batches = [-(-_size(samples, task, newest) // settings["batch_size"]) for task in range(len(samples))]
        return sum(int(n) * of_epoch for n, of_epoch in list(zip(epochs, batches, strict=False))[:tasks])

    def steps(self, task: int) -> int:
        return int(_for_each(self.epochs, self.num_tasks)[task]) * self.epoch_steps(task)

    def task_size(self, task: int) -> int:
        return _size(self.samples, task, self.images == "newest")

    def test_size(self, task: int) -> int:
        available = len(self.dataset.x_test)
        return available if self.test_samples is None else min(self.test_samples, available)

    def draw_stream(self, key: Tensor) -> Tree:
        y = self.dataset.y_train
        order = random.permutation(random.stream(key, "images"), len(y))[: self.samples[-1]]
        test_rows = random.permutation(random.stream(key, "test images"), len(self.dataset.x_test))
        others = random.integers(random.stream(key, "wrong labels"), len(y), max(1, self.num_classes - 1))
        return {
            "order": order,
            "test_rows": test_rows[: self.test_size(0)],
            "luck": random.uniform(random.stream(key, "which are wrong"), (len(y),)),
            "wrong": (y + 1 + others) % self.num_classes,
        }

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        first = self.samples[task - 1] if self.images == "newest" and task > 0 else 0
        longest = max(self.task_size(each) for each in range(self.num_tasks))
        rows = drawn["order"][first : first + self.task_size(task)]
        rows = torch.cat([rows, rows.new_zeros(longest - len(rows))])
        fraction = _for_each(self.wrong_labels, self.num_tasks)[task]
        labels = torch.where(drawn["luck"] < fraction, drawn["wrong"], self.dataset.y_train)[rows]
        test_rows = drawn["test_rows"]
        return {
            "rows": rows,
            "labels": labels,
            "test_rows": test_rows,
            "test_labels": self.dataset.y_test[test_rows],
        }


def _for_each(value: Any, tasks: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * tasks


def _size(samples: list[int], task: int, newest: bool) -> int:
    return samples[task] - (samples[task - 1] if newest and task > 0 else 0)
