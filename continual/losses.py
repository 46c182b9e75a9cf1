"""What is minimised, and what it is measured by. Both belong to the environment."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from continual.errors import ConfigError


@dataclass(frozen=True)
class Loss(ABC):
    """The loss on one example, and the measure of it that is recorded, reported and selected by.

    `measure` names it: columns are `online_<measure>` and `test_<measure>`.
    """

    measure: ClassVar[str]
    higher_is_better: ClassVar[bool]
    # Counts are summed exactly, as integers.
    measure_dtype: ClassVar[torch.dtype]

    @abstractmethod
    def per_example(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        """The loss on each example: [B]."""

    @abstractmethod
    def measured(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        """What each example adds to the measure's sum: [B]."""

    def mean_measure(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        """The mean of the measure over the examples: 0-d, float64.

        NaN where an output is not finite: argmax takes NaN for the largest, and would find an accuracy there.
        """
        mean = self.measured(outputs_BK, y_B).to(torch.float64).mean()
        return torch.where(outputs_BK.isfinite().all(), mean, torch.nan)

    @abstractmethod
    def check_targets(self, y_B: Tensor) -> None:
        """ConfigError if targets are not of the kind that this loss is for."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy with a class as target (int64 [B]); measured by accuracy."""

    measure: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    measure_dtype: ClassVar[torch.dtype] = torch.int64

    def per_example(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        return F.cross_entropy(outputs_BK, y_B, reduction="none")

    def measured(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        return outputs_BK.argmax(-1) == y_B

    def check_targets(self, y_B: Tensor) -> None:
        if y_B.dtype != torch.int64 or y_B.ndim != 1:
            raise ConfigError(
                f"env: cross-entropy needs classes as targets, int64 [B], not {_described(y_B)}; squared "
                "error is for numbers."
            )


@dataclass(frozen=True)
class SquaredError(Loss):
    """The squared difference to the target (float32 [B, K]), its mean over outputs; measured by itself."""

    measure: ClassVar[str] = "squared_error"
    higher_is_better: ClassVar[bool] = False
    measure_dtype: ClassVar[torch.dtype] = torch.float64

    def per_example(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        return ((outputs_BK - y_B) ** 2).mean(-1)

    def measured(self, outputs_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.per_example(outputs_BK, y_B).to(torch.float64)

    def check_targets(self, y_B: Tensor) -> None:
        if y_B.dtype != torch.float32 or y_B.ndim != 2:
            raise ConfigError(
                f"env: squared error needs numbers as targets, float32 [B, K], not {_described(y_B)}; "
                "cross-entropy is for classes."
            )


def _described(y: Tensor) -> str:
    return f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
