"""Tasks that are views on one dataset, which lies on the device once."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from continual.datasets.dataset import Dataset
from continual.envs.environment import Environment, Source, Task
from continual.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ImageTasks(Environment):
    """A step is one batch of the task's images; every epoch visits every full batch of a fresh shuffle.

    A task says which images it takes, what it calls them, and in which order their pixels go. `rows` index
    the training images [N], `labels` [N] say what they are; `test_rows` and `test_labels` likewise for the
    test images; without them the task is tested on its own training images. Both are as long in every task;
    `task_size` and `test_size` say how many are in use. `permutation` [pixels] says which pixel goes to each
    place; without it all stay. All are int64.
    """

    dataset: Dataset

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.dataset.input_shape

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @property
    def draw_size(self) -> int:
        # An order of the training images, in 64 bits.
        return 2 * len(self.dataset.x_train)

    @functools.cached_property
    def stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """The training images as they are stored, and the channels' scales and shifts."""
        data = self.dataset
        scale, shift = (
            torch.tensor(of, device=data.x_train.device).reshape(-1, 1, 1) for of in (data.scale, data.shift)
        )
        return data.x_train, scale, shift

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def to(self, device: torch.device) -> Self:
        names: dict[str, Any] = {
            name: getattr(self.dataset, name).to(device)
            for name in ("x_train", "y_train", "x_test", "y_test")
        }
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, **names))

    def batch(self, source: Source) -> tuple[Tensor, Tensor]:
        task, places_B = source.task, source.places_B
        gather: Callable[..., Tensor] = source.gather or images
        x = gather(*source.stored, task["rows"][places_B], task.get("permutation"))
        return x, task["labels"][places_B]

    def training_examples(
        self, task: Task, number: int, key: Tensor, places_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        used = self.task_size(number)
        rows, labels = task["rows"][:used], task["labels"][:used]
        if places_N is not None:
            rows, labels = rows[places_N], labels[places_N]
        return images(*self.stored, rows, task.get("permutation")), labels

    def test_examples(self, task: Task, number: int, key: Tensor) -> tuple[Tensor, Tensor]:
        if "test_rows" not in task:
            return self.training_examples(task, number, key)
        used = self.test_size(number)
        _, scale, shift = self.stored
        x = images(self.dataset.x_test, scale, shift, task["test_rows"][:used], task.get("permutation"))
        return x, task["test_labels"][:used]

    def test_size(self, task: int) -> int:
        """How many of the first images that the task is tested on are in use; these are padded likewise."""
        return self.task_size(task)

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
