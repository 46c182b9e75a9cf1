"""Slowly changing regression: some inputs change with the task, the function never (Dohare et al. 2024)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.func import vmap

from continual import random
from continual.envs.environment import EqualTasks, Source, Task
from continual.losses import Loss, SquaredError
from continual.schema import Count
from continual.tree import Tree


@dataclass(frozen=True, kw_only=True)
class SlowlyChangingRegression(EqualTasks):
    """`slow_bits` of an input are constant within a task; `fast_bits` are drawn for every example.

    The target is the output of a fixed network with all weights and biases 1 or -1, each with probability
    1/2: bits to `target_units` threshold units to one number. With m bits, unit i is 1 where w_i x + b_i >
    beta (m + 1) - S_i, beta being `threshold` and S_i the number of -1 among its weights and its bias
    (`negatives: all`). The released code has S_i = (m - sum w_i + b_i) / 2 (`negatives: released`), and so
    have its figures.

    At the start of each task but the first, `change: flip_one` flips one slow bit, as the paper says;
    `redraw_all`, as in the released configs, draws all of them anew.
    """

    tasks_depend_on_their_number: ClassVar[bool] = True

    loss: ClassVar[Loss] = SquaredError()

    slow_bits: Count = 15
    fast_bits: Count = 5
    target_units: Count = 100
    threshold: float = 0.7
    change: Literal["flip_one", "redraw_all"] = "flip_one"
    negatives: Literal["all", "released"] = "all"
    test_samples: Count = 1000

    @property
    def bits(self) -> int:
        """How many bits an input has."""
        return self.slow_bits + self.fast_bits

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 1, 1, self.bits

    @property
    def num_classes(self) -> int:
        return 1

    def draw_stream(self, key: Tensor) -> Tree:
        signs = random.stream(key, "target network")
        w = _signs(random.stream(signs, "w"), self.target_units * self.bits).reshape(-1, self.bits)
        b = _signs(random.stream(signs, "b"), self.target_units)
        if self.negatives == "all":
            negatives = (self.bits + 1 - w.sum(1) - b) / 2
        else:
            negatives = (self.bits - w.sum(1) + b) / 2
        first = random.integers(random.stream(key, "slow bits"), self.slow_bits, 2)
        # Which bit is flipped at the start of each task; that of the first is not used.
        flips = random.integers(random.stream(key, "flips"), self.num_tasks, self.slow_bits)
        return {
            "w": w,
            "b": b,
            "cut": self.threshold * (self.bits + 1) - negatives,
            "v": _signs(random.stream(signs, "v"), self.target_units),
            "c": _signs(random.stream(signs, "c"), 1),
            "first": first,
            "flips": flips,
        }

    def task(self, drawn: Tree, key: Tensor, task: int) -> Task:
        if self.change == "redraw_all":
            slow_key = random.fold(random.stream(key, "slow bits"), task)
            slow = random.integers(slow_key, self.slow_bits, 2)
        else:
            place = torch.arange(self.slow_bits, device=key.device)
            flipped = (drawn["flips"][1 : task + 1, None] == place).sum(0)
            slow = (drawn["first"] + flipped) % 2
        return {"slow": slow.to(torch.float32), **{name: drawn[name] for name in ("w", "b", "cut", "v", "c")}}

    def batch(self, source: Source) -> tuple[Tensor, Tensor]:
        return self._examples(source.task, self._fast_key(source.key, source.step), self.batch_size)

    def training_examples(
        self, task: Task, number: int, key: Tensor, places_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if places_N is None:
            places_N = torch.arange(self.task_size(number), device=key.device)

        def example(place: Tensor) -> tuple[Tensor, Tensor]:
            # Those of the task's steps.
            step = self.first_step(number) + place // self.batch_size
            x_BCHW, y_BK = self._examples(task, self._fast_key(key, step), self.batch_size)
            return x_BCHW[place % self.batch_size], y_BK[place % self.batch_size]

        found: tuple[Tensor, Tensor] = vmap(example)(places_N)
        return found

    def test_examples(self, task: Task, number: int, key: Tensor) -> tuple[Tensor, Tensor]:
        return self._examples(task, random.fold(random.stream(key, "test"), number), self.test_samples)

    def task_size(self, task: int) -> int:
        return self.steps_per_task * self.batch_size

    def test_size(self, task: int) -> int:
        return self.test_samples

    def _fast_key(self, key: Tensor, step: Tensor) -> Tensor:
        """The key of what a step's inputs draw."""
        return random.fold(random.stream(key, "fast bits"), step)

    def _examples(self, task: Task, key: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """So many inputs [N, 1, 1, bits] with their targets [N, 1]."""
        fast = random.integers(key, count * self.fast_bits, 2).reshape(count, self.fast_bits)
        x = torch.cat([task["slow"].expand(count, -1), fast.to(torch.float32)], dim=1)
        units = (x @ task["w"].T + task["b"] > task["cut"]).to(torch.float32)
        y = units @ task["v"][:, None] + task["c"]
        return x[:, None, None, :], y


def _signs(key: Tensor, count: int) -> Tensor:
    """So many draws of 1 and -1, float32."""
    return 2 * random.integers(key, count, 2).to(torch.float32) - 1
