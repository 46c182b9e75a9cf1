"""Selective weight reinitialisation: single weights of little use are drawn anew.

y = |g theta|  (utility: gradient)  or  |theta|  (utility: magnitude)
u <- utility_decay u + (1 - utility_decay) y,  u = 0 at the start and after weights of its tensor were drawn
every `period` steps, per tensor, weights are drawn anew from their initial distribution:
those with u <= reinit_rate * mean u (prune: threshold), or the share reinit_rate of lowest u (prune: lowest;
of the broken rest of a share one more with that probability)

(Hernandez-Garcia et al. 2025, "Reinitializing weights vs units for maintaining plasticity in neural
networks", arXiv 2508.00212.)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Context, Step, Update
from continual.schema import Fraction, Period, SwitchableDecay, is_on


@dataclass(frozen=True)
class SelectiveWeightReinit(Agent):
    """g is the gradient of the loss without penalty, theta the weight before the step. Moments stay.

    With a utility_decay of 0, u is y and nothing is remembered.
    """

    reinit_rate: Fraction = 0.01
    period: Period = 1000
    utility: Literal["gradient", "magnitude"] = "gradient"
    prune: Literal["threshold", "lowest"] = "threshold"
    utility_decay: SwitchableDecay = 0.0

    def init(self, context: Context) -> dict[str, Tensor]:
        averages = is_on(self.utility_decay)
        return {name: torch.zeros_like(w) for name, w in context.initial.items()} if averages else {}

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = (context.step + 1) % self.period == 0
        params, fresh, d = dict(update.params), context.draw_initial(), self.utility_decay
        gradients = step.loss_gradients() if self.utility == "gradient" else {}
        utilities = {}
        for name in context.anatomy.weights:
            before = step.before[name]
            u = (gradients[name] * before if self.utility == "gradient" else before).abs()
            if is_on(d):
                u = d * update.state[name] + (1 - d) * u
            chance = random.uniform(random.stream(context.key, f"{name}/count"), ())
            is_drawn = is_due & self.pruned(u, chance)
            params[name] = torch.where(is_drawn, fresh[name], params[name])
            if is_on(d):
                utilities[name] = torch.where(is_drawn.any(), 0.0, u)
        return update._replace(params=params, state=utilities)

    def pruned(self, u: Tensor, chance: Tensor) -> Tensor:
        """Which entries are drawn anew, bool of u's shape; `chance` in [0, 1) decides on a part of one."""
        if self.prune == "threshold":
            return (u <= self.reinit_rate * u.mean()) & (torch.as_tensor(self.reinit_rate) > 0)
        share = torch.as_tensor(self.reinit_rate * u.numel())
        count = share.floor() + (chance < share.frac())
        ranks = u.flatten().argsort(stable=True).argsort()
        return (ranks < count).reshape(u.shape)
