"""L1 Init: regularise towards the initial parameters, by the distance in each of them.

loss(theta) + l1_weight * ||theta - theta_0||_1                  (Kumar et al. 2024, appendix A)
"""

from dataclasses import dataclass

from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, sum_over
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L1Init(Agent):
    """Like L2 Init, but the pull back is equally strong near and far: most weights stay where they began.

    With `sample_init_values`, theta_0 is drawn anew from the initial distribution at every step.
    """

    l1_weight: NonNegative = 1e-4
    sample_init_values: bool = False

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        distance = context.distance(weights, self.sample_init_values)
        return self.l1_weight * sum_over(distance, lambda name: distance[name].abs())
