"""DASH: at a task's start, shrink the weights that the new task's gradients do not ask for.

G <- (1 - dash_alpha) G - dash_alpha gradient     over the batches of the new task's first epoch, from G = 0
w <- w clip(cos(G_w, w), shrink_least, 1)            w a row of a matrix, a kernel, or a bias as a whole

(Shin et al. 2024, "DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of
Plasticity", arXiv 2410.23495; details as in FIRE's code, isaac7778/FIRE.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from continual.agents.agent import Agent, Context, TaskStart, Update
from continual.schema import Fraction


@dataclass(frozen=True)
class DASH(Agent):
    """Knows when a task starts. G remembers about 1 / dash_alpha batches; the output layer is shrunk too."""

    dash_alpha: Fraction = 0.3
    shrink_least: Fraction = 0.05
    reset_optimizer: bool = True

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        a, names = self.dash_alpha, context.anatomy.weights
        params = dict(update.params)
        direction = {name: torch.zeros_like(params[name]) for name in names}
        for number in range(start.batches):
            gradients = start.gradient_on(number)
            direction = {name: (1 - a) * G - a * gradients[name] for name, G in direction.items()}
        for name, G in direction.items():
            params[name] = params[name] * shrinkage(G, params[name]).clamp(min=self.shrink_least).clamp(
                max=1.0
            )
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)


def shrinkage(direction: Tensor, weight: Tensor) -> Tensor:
    """cos(G, w) of each row, kernel or bias, to be broadcast with the weight."""
    if weight.ndim == 4:
        cosine = F.cosine_similarity(direction.flatten(2), weight.flatten(2), dim=2)
        return cosine[:, :, None, None]
    if weight.ndim == 2:
        return F.cosine_similarity(direction, weight, dim=1)[:, None]
    return F.cosine_similarity(direction.flatten(), weight.flatten(), dim=0)
