"""Selective weight reinitialisation: single weights of little use are drawn anew.

y = |g theta|  (utility: gradient)  or  |theta|  (utility: magnitude)
every `period` steps, per tensor, weights are drawn anew from their initial distribution:
those with y <= reinit_rate * mean y (prune: threshold), or the share reinit_rate of lowest y (prune: lowest)

(Hernandez-Garcia et al. 2025, "Reinitializing weights vs units for maintaining plasticity in neural
networks", arXiv 2508.00212.)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from continual.agents.agent import Agent, Context, Step, Update
from continual.schema import Fraction, Period


@dataclass(frozen=True)
class SelectiveWeightReinit(Agent):
    """g is the gradient of the loss without penalty, theta the weight before the step. Moments stay."""

    reinit_rate: Fraction = 0.01
    period: Period = 1000
    utility: Literal["gradient", "magnitude"] = "gradient"
    prune: Literal["threshold", "lowest"] = "threshold"

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = (context.step + 1) % self.period == 0
        params, fresh = dict(update.params), context.draw_initial()
        gradients = step.loss_gradients() if self.utility == "gradient" else {}
        for name in context.anatomy.weights:
            before = step.before[name]
            y = (gradients[name] * before if self.utility == "gradient" else before).abs()
            params[name] = torch.where(is_due & self.pruned(y), fresh[name], params[name])
        return update._replace(params=params)

    def pruned(self, y: Tensor) -> Tensor:
        """Which entries are drawn anew: bool, of y's shape."""
        if self.prune == "threshold":
            return (y <= self.reinit_rate * y.mean()) & (torch.as_tensor(self.reinit_rate) > 0)
        ranks = y.flatten().argsort(stable=True).argsort()
        return (ranks < (self.reinit_rate * y.numel())).reshape(y.shape)
