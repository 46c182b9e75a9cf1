"""How the step size changes within a task, or over the whole run: a factor of it for each step."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor

from continual.schema import Count, NonNegative, Period, PerReplica


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Each step size of the optimiser is what was given times `factor(t)`, t the steps done before, from 0.

    They are counted anew with each task (`over: task`), or over the whole run (`over: run`).
    """

    over: Literal["task", "run"] = "task"

    @abstractmethod
    def factor(self, step: Tensor) -> Tensor:
        """The factor of the step (0-d int64): 0-d float32."""

    @property
    @abstractmethod
    def length(self) -> int:
        """How many steps a task or run must have for the schedule to come to its end."""


@dataclass(frozen=True, kw_only=True)
class WarmUp(Schedule):
    """min(1, (t + 1) / steps): the step size grows evenly to what it is."""

    steps: Period = 100

    def factor(self, step: Tensor) -> Tensor:
        return ((step + 1).to(torch.float32) / self.steps).clamp(max=1)

    @property
    def length(self) -> int:
        return self.steps


@dataclass(frozen=True, kw_only=True)
class Milestones(Schedule):
    """gamma to the power of how many of `steps` are done: the step size falls at each of them.

    Dohare et al. (2024) multiply by 0.2 at three steps of each increment of classes.
    """

    steps: Annotated[list[Count], MinLen(1)]
    gamma: Annotated[float, PerReplica(), Gt(0)] = 0.2

    def factor(self, step: Tensor) -> Tensor:
        done = sum((step >= milestone).to(torch.float32) for milestone in self.steps)
        return torch.as_tensor(self.gamma, device=step.device) ** done

    @property
    def length(self) -> int:
        return max(self.steps)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """(1 + cos(pi min(t, steps) / steps)) / 2: from the whole step size to none.

    (Loshchilov & Hutter 2017.)
    """

    steps: Period = 1000

    def factor(self, step: Tensor) -> Tensor:
        done = (step.to(torch.float32) / self.steps).clamp(max=1)
        return (1 + torch.cos(math.pi * done)) / 2

    @property
    def length(self) -> int:
        return self.steps


@dataclass(frozen=True, kw_only=True)
class InverseTime(Schedule):
    """1 / (1 + rate t)."""

    rate: NonNegative = 1e-3

    def factor(self, step: Tensor) -> Tensor:
        return 1 / (1 + self.rate * step.to(torch.float32))

    @property
    def length(self) -> int:
        return 1
