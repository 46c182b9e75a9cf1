"""Parseval regularisation: the hidden layers' weights stay orthogonal.

loss(theta) + parseval_weight * sum over hidden layers of (64 / U)^2 ||W W^T - scale I||_F^2,  U its units

(Chung et al. 2024, "Parseval Regularization for Continual Reinforcement Learning", arXiv 2412.07224; code:
wechu/parseval_reg. `width_factor: false` leaves out the factor, which makes widths comparable.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Anatomy, Batch, Context, Weights, matrices
from continual.errors import ConfigError
from continual.schema import NonNegative, Positive
from continual.tree import Tree


@dataclass(frozen=True)
class Parseval(Agent):
    """With network.init=orthogonal, whose gain for ReLU is sqrt(2), W W^T is 2 I at the start."""

    parseval_weight: NonNegative = 1e-3
    scale: Positive = 2.0
    width_factor: bool = True

    def check(self, anatomy: Anatomy) -> None:
        if not {"input", "hidden"}.intersection(anatomy.roles.values()):
            raise ConfigError("agent: parseval needs a hidden layer, and the network has none.")

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        terms = []
        for matrix in matrices(weights, context, "input", "hidden").values():
            units = len(matrix)
            difference = matrix @ matrix.T - self.scale * torch.eye(units, device=matrix.device)
            factor = (64 / units) ** 2 if self.width_factor else 1.0
            terms.append(factor * (difference**2).sum())
        return self.parseval_weight * torch.stack(terms).sum()
