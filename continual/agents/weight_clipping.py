"""Weight clipping: no weight or bias grows beyond a multiple of its initial range.

theta <- clip(theta, -kappa / sqrt(fan_in), kappa / sqrt(fan_in))       after every step

(Elsayed, Lan, Lyle & Mahmood 2024, "Weight Clipping for Deep Continual and Reinforcement Learning",
arXiv 2407.01704; code: mohmdelsayed/weight-clipping.)
"""

from dataclasses import dataclass

from continual.agents.agent import Agent, Context, Step, Update, fan_in, module_of
from continual.schema import Positive


@dataclass(frozen=True)
class WeightClipping(Agent):
    """A bias has the fan-in of its layer; norms and the optimiser's state are left as they are."""

    kappa: Positive = 1.0
    clip_output: bool = True

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        params, roles = dict(update.params), context.anatomy.roles
        for name in context.anatomy.weights:
            if self.clip_output or roles.get(f"{module_of(name)}.weight") != "output":
                bound = self.kappa / fan_in(name, update.params) ** 0.5
                params[name] = params[name].clamp(-bound, bound)
        return update._replace(params=params)
