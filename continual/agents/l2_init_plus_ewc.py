"""L2 Init + EWC: both penalties, for plasticity and against forgetting.

loss(theta) + l2_weight / 2 * ||theta - theta_0||^2 + ewc_weight / 2 * sum_i F_i (theta_i - theta*_i)^2
                                                             (Kumar et al. 2024, appendix on forgetting)
"""

from dataclasses import dataclass

from torch import Tensor

from continual.agents.agent import Context, Weights, sum_over
from continual.agents.ewc import EWC
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L2InitPlusEWC(EWC):
    """EWC with the term of L2 Init added."""

    l2_weight: NonNegative = 1e-2

    def penalty(self, weights: Weights, state: Tree, context: Context) -> Tensor:
        initial = context.initial
        distance = sum_over(weights, lambda name: (weights[name] - initial[name]) ** 2)
        ewc = super().penalty(weights, state, context)
        return ewc + self.l2_weight / 2 * distance
