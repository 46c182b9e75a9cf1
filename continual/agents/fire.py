"""FIRE: at a task's start, matrices go to the nearest ones that keep all directions equally long.

X = W / ||W||_F;  iterations times X <- 1.5 X - 0.5 X (X^T X);  W <- X sqrt(outputs / inputs) / (kh kw)

of every weight matrix and every place of a kernel, the output's too; X^T X is over the smaller side.

(FIRE 2026, arXiv 2602.08040; code: isaac7778/FIRE. Newton-Schulz makes a small singular value at most
1.5^iterations times as large: it is part of the method, and not replaced by a decomposition.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Context, TaskStart, Update
from continual.schema import Count


@dataclass(frozen=True)
class FIRE(Agent):
    """Knows when a task starts. Biases and norms stay."""

    iterations: Count = 10
    reset_optimizer: bool = True

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        params = dict(update.params)
        for name in context.anatomy.weights:
            if params[name].ndim > 1:
                params[name] = isometry(params[name], self.iterations)
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)


def isometry(weight: Tensor, iterations: int) -> Tensor:
    """The weight [O, I] or [O, I, kh, kw] as above."""
    outputs, inputs = weight.shape[:2]
    places = weight.flatten(2).permute(2, 0, 1) if weight.ndim > 2 else weight[None]  # [places, O, I]
    x = places.transpose(1, 2) if outputs < inputs else places
    x = x / torch.linalg.matrix_norm(x).clamp(min=1e-12)[:, None, None]
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ (x.transpose(1, 2) @ x)
    if outputs < inputs:
        x = x.transpose(1, 2)
    scaled = x * (outputs / inputs) ** 0.5 / len(places)
    found: Tensor = scaled.permute(1, 2, 0).reshape(weight.shape)
    return found
