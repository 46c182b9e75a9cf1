"""Huber Init: regularise towards the initial parameters, squarely when near and linearly when far.

loss(theta) + huber_weight * sum huber_1(theta - theta_0)        (Kumar et al. 2024, appendix A)

huber_1(d) = d^2 / 2 where |d| <= 1, and |d| - 1/2 elsewhere (Huber 1964).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from continual.agents.agent import Agent, Batch, Context, Weights, sum_over
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class HuberInit(Agent):
    """L2 Init whose pull on a weight stops growing at a distance of 1."""

    huber_weight: NonNegative = 1e-2

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        def term(name: str) -> Tensor:
            return F.huber_loss(weights[name], context.initial[name], reduction="none", delta=1.0)

        return self.huber_weight * sum_over(weights, term)
