"""Shrink and Perturb: after every step, a step towards zero and a little noise.

theta <- (1 - shrink) * theta + perturb_scale * eps,  eps ~ the initial distribution

(Ash & Adams 2020, "On Warm-Starting Neural Network Training"; at every step as in Kumar et al. 2024.)
"""

from dataclasses import dataclass

from continual.agents.agent import Agent, Context, Step, Update
from continual.schema import Fraction, NonNegative


@dataclass(frozen=True)
class ShrinkAndPerturb(Agent):
    """Covers weights and biases; norms and the optimiser's state are left as they are."""

    shrink: Fraction = 1e-4
    perturb_scale: NonNegative = 1e-2

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        noise = context.draw_initial()
        moved = {
            name: (1 - self.shrink) * update.params[name] + self.perturb_scale * noise[name] for name in noise
        }
        return update._replace(params={**update.params, **moved})
