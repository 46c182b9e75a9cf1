"""L2 Init: regularise towards the initial parameters.

loss(theta) + l2_weight / 2 * ||theta - theta_0||^2          (Kumar et al. 2024, section 3 and appendix A.3)
"""

from dataclasses import dataclass

from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, half_square, sum_over
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L2Init(Agent):
    """Weights that the current loss does not need drift back to where learning was easy.

    With `sample_init_values`, theta_0 is drawn anew from the initial distribution at every step
    ("L2 Init + Resample" in the paper). With `normalise`, the term is l2_weight * sum over tensors p of
    ||p - p_0||^2 / numel(p), as in wechu/parseval_reg.
    """

    l2_weight: NonNegative = 1e-2
    sample_init_values: bool = False
    normalise: bool = False

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        distance = context.distance(weights, self.sample_init_values)
        if self.normalise:
            return self.l2_weight * sum_over(
                distance, lambda name: distance[name] ** 2 / distance[name].numel()
            )
        return self.l2_weight * half_square(distance)
