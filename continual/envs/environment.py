"""An environment: a stream of tasks, each drawn from the replica's key."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import torch
from annotated_types import Ge, Le
from torch import Tensor

from continual import random
from continual.losses import CrossEntropy, Loss
from continual.schema import Count
from continual.scoring import Score
from continual.tree import Tree

# One replica's task: tensors by name, with the same shapes in every task of an environment.
Task: TypeAlias = Mapping[str, Tensor]


class Source(NamedTuple):
    """What a replica's batch of one step is made from.

    `stored` is the environment's, and `task` the replica's; `places_B` are the examples' places in the task,
    from `shuffle`; `key` is the replica's; `step` counts the steps done before, over all tasks (0-d).
    `gather`, if given, is to be used for `continual.envs.image_tasks.images`.
    """

    stored: tuple[Tensor, ...]
    task: Task
    places_B: Tensor
    key: Tensor
    step: Tensor
    gather: Callable[..., Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Environment(ABC):
    """A stream of tasks; everything about it is a function of the replica's key.

    At the start of each task, the first one included, this is done to every agent: `output_layer` is kept,
    set to zero or drawn anew from its initial distribution (the slots of the optimiser stay), and
    `optimizer_state` is kept or renewed. `score` says what runs are compared by: the mean over the scored
    tasks' steps of the loss's measure on the batch before the update (`online`), or the mean over the scored
    tasks of the measure on test data at their ends (`test`); None: by nothing.
    """

    loss: ClassVar[Loss] = CrossEntropy()
    # Whether the last batch of an epoch may have fewer than `batch_size` examples.
    has_partial_batches: ClassVar[bool] = False
    # Whether tasks, or the network's outputs, change with `num_tasks`: such a run cannot be prolonged.
    tasks_depend_on_their_number: ClassVar[bool] = False

    num_tasks: Annotated[int, Ge(1), Le(10**6)]
    batch_size: Count
    output_layer: Literal["keep", "zero", "redraw"] = "keep"
    optimizer_state: Literal["keep", "renew"] = "keep"
    score: Literal["online", "test"] | None = "online"

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many outputs the network needs."""

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """What all replicas read in every step: lies on the device once."""
        return ()

    @property
    def draw_size(self) -> int:
        """About how many 32-bit numbers the largest temporary of drawing a task has."""
        return 1

    @property
    def fingerprint(self) -> str | None:
        """A short name of the data that tasks are made of; None where they are drawn."""
        return None

    def to(self, device: torch.device) -> Self:
        """This environment with its data on the device."""
        return self

    def draw_stream(self, key: Tensor) -> Tree:
        """What a replica draws once for all its tasks: a tree of tensors."""
        return {}

    @abstractmethod
    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        """The replica's task of this number, from what it drew once and its key."""

    @abstractmethod
    def batch(self, source: Source) -> tuple[Tensor, Tensor]:
        """The inputs [B, C, H, W] and targets [B, ...] of one step."""

    @abstractmethod
    def training_examples(
        self, task: Task, number: int, key: Tensor, places_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the training examples at these places, or of all, of the task `number`."""

    @abstractmethod
    def test_examples(self, task: Task, number: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the examples that the task `number` is tested on."""

    @classmethod
    def task_type(cls, task: int) -> str:
        """The kind of this task, where an environment has several; the same for all replicas."""
        return ""

    @classmethod
    def is_scored(cls, task: int) -> bool:
        """Whether this task counts in the score."""
        return True

    @classmethod
    def declared_score(cls, settings: Mapping[str, Any]) -> Score | None:
        """What runs with these settings (a config's `env`) are compared by; needs no data."""
        when = settings.get("score", "online")
        return None if when is None else Score(f"{when}_{cls.loss.measure}", cls.loss.higher_is_better)

    @classmethod
    @abstractmethod
    def num_steps(cls, settings: Mapping[str, Any], tasks: int | None = None) -> int:
        """How many steps the first `tasks` tasks, or all, have with these settings (a config's `env`).

        Needs no data.
        """

    @abstractmethod
    def steps(self, task: int) -> int:
        """How many steps this task has."""

    def first_step(self, task: int) -> int:
        """How many steps the tasks before this one have together."""
        return sum(self.steps(earlier) for earlier in range(task))

    @abstractmethod
    def task_size(self, task: int) -> int:
        """How many training examples the task has."""

    @abstractmethod
    def test_size(self, task: int) -> int:
        """How many examples the task is tested on."""

    def epoch_steps(self, task: int) -> int:
        """How many batches an epoch of the task has."""
        full, rest = divmod(self.task_size(task), self.batch_size)
        return full + (rest > 0 and self.has_partial_batches)

    def examples(self, task: int, steps: int) -> int:
        """How many examples so many steps from the task's start see."""
        epochs, rest = divmod(steps, self.epoch_steps(task))
        per_epoch = self.epoch_steps(task) * self.batch_size
        return epochs * min(self.task_size(task), per_epoch) + rest * self.batch_size

    def shuffle(self, key: Tensor, task: int, epoch: int) -> Tensor:
        """The batches of an epoch: places in the task, int64 [batches, batch_size]; -1 where there is none.

        Every epoch visits every batch of a fresh shuffle.
        """
        size, batches = self.task_size(task), self.epoch_steps(task)
        epoch_key = random.fold(random.fold(random.stream(key, "batches"), task), epoch)
        order = random.permutation(epoch_key, size)[: batches * self.batch_size]
        missing = batches * self.batch_size - len(order)
        if missing:
            order = torch.cat([order, order.new_full((missing,), -1)])
        return order.reshape(batches, self.batch_size)


@dataclass(frozen=True, kw_only=True)
class EqualTasks(Environment):
    """All tasks have `steps_per_task` steps."""

    steps_per_task: Count

    @classmethod
    def num_steps(cls, settings: Mapping[str, Any], tasks: int | None = None) -> int:
        return int((settings["num_tasks"] if tasks is None else tasks) * settings["steps_per_task"])

    def steps(self, task: int) -> int:
        return self.steps_per_task

    def first_step(self, task: int) -> int:
        return task * self.steps_per_task
