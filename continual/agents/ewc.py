"""EWC: regularise towards the end of the last task, each weight by its importance there.

loss(theta) + ewc_weight / 2 * sum_i F_i (theta_i - theta*_i)^2          (Kirkpatrick et al. 2017, equation 3)

theta* are the weights at the end of the last task; F is 1, or the diagonal of that task's empirical Fisher
information: the mean over its images of the squared gradient of log p(label | image).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, sum_over
from continual.schema import Count, NonNegative


class Anchored(NamedTuple):
    """theta* and F of the equation above, by the name of the weight."""

    anchor: Weights
    importance: Weights


@dataclass(frozen=True)
class EWC(Agent):
    """Protects what the last task needed; nothing is added during the first task."""

    ewc_weight: NonNegative = 1e-2
    use_fisher: bool = False
    fisher_examples: Count = 1000

    def init(self, context: Context) -> Anchored:
        importance = {name: torch.zeros_like(weight) for name, weight in context.initial.items()}
        return Anchored(context.initial, importance)

    def penalty(self, weights: Weights, state: Anchored, context: Context, batch: Batch) -> Tensor:
        anchor, importance = state
        distance = sum_over(weights, lambda name: importance[name] * (weights[name] - anchor[name]) ** 2)
        return self.ewc_weight / 2 * distance

    def end_task(
        self, weights: Weights, state: Anchored, squared_gradients: Callable[[int], Weights]
    ) -> Anchored:
        if self.use_fisher:
            importance = squared_gradients(self.fisher_examples)
        else:
            importance = {name: torch.ones_like(weight) for name, weight in weights.items()}
        return Anchored(weights, importance)
