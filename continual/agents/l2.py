"""L2: regularise towards zero.

loss(theta) + l2_weight / 2 * ||theta||^2
"""

from dataclasses import dataclass

from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, half_square
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L2(Agent):
    """Keeps the weights small."""

    l2_weight: NonNegative = 1e-2

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        return self.l2_weight * half_square(weights)
