"""What environments share whose tasks take images of any class."""

from dataclasses import dataclass

from torch import Tensor

from continual import random
from continual.envs.environment import EqualTasks
from continual.envs.image_tasks import ImageTasks
from continual.errors import ConfigError
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class SampledImages(ImageTasks, EqualTasks):
    """Each task has `samples_per_task` of the training images."""

    samples_per_task: Count

    def __post_init__(self) -> None:
        available = len(self.dataset.x_train)
        if self.samples_per_task > available:
            raise ConfigError(
                f"env.samples_per_task: {self.samples_per_task} is more than the dataset's {available} "
                f"training images; at most {available} is possible."
            )
        self.check_batch_size("env.samples_per_task")

    def task_size(self, task: int) -> int:
        return self.samples_per_task

    def sample(self, key: Tensor) -> Tensor:
        """The rows of a random subset of the training images: int64 [samples_per_task]."""
        return random.permutation(key, len(self.dataset.x_train))[: self.samples_per_task]


@dataclass(frozen=True, kw_only=True)
class TestedImages(SampledImages):
    """Tasks of one sample of the training images or of a fresh one each, tested on one of the test images."""

    test_samples: Count = 1000
    resample_images: bool = False

    def draw_stream(self, key: Tensor) -> Tree:
        num_test = len(self.dataset.x_test)
        test_rows = random.permutation(random.stream(key, "test images"), num_test)
        drawn = {"test_rows": test_rows[: self.test_samples]}
        if not self.resample_images:
            drawn["rows"] = self.sample(random.stream(key, "images"))
        return drawn

    def rows(self, drawn: Tree, key: Tensor, task: int) -> Tensor:
        """The training images of this task, int64 [samples_per_task]."""
        if self.resample_images:
            return self.sample(random.fold(random.stream(key, "images"), task))
        rows: Tensor = drawn["rows"]
        return rows
