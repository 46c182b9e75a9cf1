"""An environment: a stream of tasks, each a view on one dataset that lies on the device once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NotRequired, TypedDict

import torch
from annotated_types import Ge, Le
from torch import Tensor

from continual import random
from continual.datasets.dataset import Dataset
from continual.errors import ConfigError
from continual.schema import Count
from continual.tree import Tree


class Task(TypedDict):
    """One replica's task: which images it takes, what it calls them, and in which order their pixels go.

    `rows` index the training images [N], `labels` [N] say what they are; `test_rows` and `test_labels`
    likewise for the test images; without them the task is tested on its own training images. Both are as
    long in every task; `Environment.task_size` and `test_size` say how many are in use.
    `permutation` [pixels] says which pixel goes to each place; without it all stay. All are int64.
    """

    rows: Tensor
    labels: Tensor
    test_rows: NotRequired[Tensor]
    test_labels: NotRequired[Tensor]
    permutation: NotRequired[Tensor]


@dataclass(frozen=True)
class Environment(ABC):
    """A stream of tasks; everything about it is a function of the replica's key.

    A step is one batch of `batch_size` of the task's images; every epoch visits every full batch of a fresh
    shuffle, until `steps_per_task` steps are done.
    """

    tasks_depend_on_their_number: ClassVar[bool] = False
    """Whether tasks, or the network's outputs, change with `num_tasks`: such a run cannot be prolonged."""

    dataset: Dataset
    num_tasks: Annotated[int, Ge(1), Le(10**6)]
    steps_per_task: Count
    batch_size: Count

    @property
    def num_classes(self) -> int:
        """How many outputs the network needs."""
        return self.dataset.num_classes

    def draw_stream(self, key: Tensor) -> Tree:
        """What a replica draws once for all its tasks: a tree of tensors."""
        return {}

    @abstractmethod
    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        """The replica's task of this number, from what it drew once and its key."""

    @classmethod
    def task_type(cls, task: int) -> str:
        """The kind of this task, where an environment has several; the same for all replicas."""
        return ""

    @classmethod
    def is_scored(cls, task: int) -> bool:
        """Whether this task counts in the total average online accuracy."""
        return True

    @abstractmethod
    def task_size(self, task: int) -> int:
        """How many of the task's first rows are in use; tasks are padded to one length."""

    def test_size(self, task: int) -> int:
        """How many of the first images that the task is tested on are in use; these are padded likewise."""
        return self.task_size(task)

    def shuffle(self, key: Tensor, task: int, epoch: int) -> Tensor:
        """The batches of an epoch: places in the task's rows, int64 [batches, batch_size]."""
        size = self.task_size(task)
        epoch_key = random.fold(random.fold(random.stream(key, "batches"), task), epoch)
        batches = size // self.batch_size
        order = random.permutation(epoch_key, size)[: batches * self.batch_size]
        return order.reshape(batches, self.batch_size)

    def check_batch_size(self, set_by: str) -> None:
        """ConfigError if a task has less than a batch of images; `set_by` is the key of their number."""
        smallest = min(self.task_size(task) for task in range(self.num_tasks))
        if self.batch_size > smallest:
            raise ConfigError(
                f"env.batch_size: {self.batch_size} is more than the {smallest} images of a task "
                f"({set_by}); at most {smallest} is possible."
            )


def images(pixels: Tensor, scale: Tensor, shift: Tensor, rows: Tensor, permutation: Tensor | None) -> Tensor:
    """The network's input [B, C, H, W] for these rows of the stored images [N, C, H, W].

    `scale` and `shift` are per channel, [C, 1, 1]. Stored images stay as they are (uint8 where they came
    so): they are gathered, permuted and normalised on the way.
    """
    shape = pixels.shape[1:]
    if permutation is None:
        return pixels[rows].to(torch.float32) * scale + shift
    size = shape.numel()
    # One gather from the flat array: an image is never copied before its pixels are permuted.
    wide = torch.int64 if pixels.numel() >= 2**31 else torch.int32
    places = rows.to(wide)[:, None] * size + permutation.to(wide)
    values = pixels.reshape(-1)[places].to(torch.float32)
    scale, shift = (v.expand(shape).reshape(-1)[permutation] for v in (scale, shift))
    return (values * scale + shift).reshape(-1, *shape)
