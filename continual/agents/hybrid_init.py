"""Hybrid Init: the penalties of L2 Init and L1 Init together.

loss(theta) + l2_weight / 2 * ||theta - theta_0||^2 + l1_weight * ||theta - theta_0||_1
                                                                 (Kumar et al. 2024, appendix A)
"""

from dataclasses import dataclass

from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, half_square, sum_over
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class HybridInit(Agent):
    """An elastic net around the initial parameters.

    With `sample_init_values`, theta_0 is drawn anew from the initial distribution at every step.
    """

    l2_weight: NonNegative = 1e-3
    l1_weight: NonNegative = 1e-4
    sample_init_values: bool = False

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        distance = context.distance(weights, self.sample_init_values)
        l1 = sum_over(distance, lambda name: distance[name].abs())
        return self.l2_weight * half_square(distance) + self.l1_weight * l1
