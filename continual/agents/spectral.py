"""Spectral regularisation: every layer's largest singular value is kept near 1.

loss(theta) + spectral_weight * sum over layers of (sigma_1(W)^power - 1)^2 + ||b||^(2 power)

(Lewandowski et al. 2024, "Learning Continually by Spectral Regularization", arXiv 2406.06811, section 4.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Batch, Context, Step, Update, Weights, matrices
from continual.schema import Count, NonNegative


@dataclass(frozen=True)
class Spectral(Agent):
    """sigma_1 is ||W v||, v the right singular vector as one power iteration a step follows it."""

    spectral_weight: NonNegative = 1e-3
    power: Count = 2

    @property
    def multiplies_vectors(self) -> bool:
        return True

    def init(self, context: Context) -> dict[str, Tensor]:
        found = {}
        for name, matrix in _matrices(context.initial, context).items():
            v = random.normal(random.stream(context.key, name), matrix.shape[1:])
            found[name] = v / torch.linalg.vector_norm(v)
        return found

    def penalty(self, weights: Weights, state: dict[str, Tensor], context: Context, batch: Batch) -> Tensor:
        k = self.power
        layers = [
            (torch.linalg.vector_norm(matrix @ state[name]) ** k - 1) ** 2
            for name, matrix in _matrices(weights, context).items()
        ]
        # As a power of the sum of squares: the norm has no gradient at 0.
        biases = [(b**2).sum() ** k for n, b in weights.items() if context.anatomy.roles[n] == "bias"]
        return self.spectral_weight * torch.stack([*layers, *biases]).sum()

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        vectors = {}
        for name, v in update.state.items():
            matrix = update.params[name].flatten(1)
            u = matrix @ v
            v = matrix.T @ (u / torch.linalg.vector_norm(u).clamp(min=1e-12))
            vectors[name] = v / torch.linalg.vector_norm(v).clamp(min=1e-12)
        return update._replace(state=vectors)


def _matrices(weights: Weights, context: Context) -> dict[str, Tensor]:
    return matrices(weights, context, "input", "hidden", "output")
