"""What environments share whose tasks take images of any class."""

from dataclasses import dataclass

from torch import Tensor

from continual import random
from continual.envs.environment import EqualTasks
from continual.envs.image_tasks import ImageTasks
from continual.errors import ConfigError
from continual.schema import Count


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
