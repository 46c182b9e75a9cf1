"""Shrink and Perturb: a step towards zero and a little noise, after every step or at every task's start.

theta <- (1 - shrink) * theta + perturb_scale * eps,  eps ~ the initial distribution (noise: sample)
                                                      or theta_0 (noise: initial)

(Ash & Adams 2020, "On Warm-Starting Neural Network Training", between tasks; at every step as in Kumar et al.
2024; with stored theta_0 as in Lee et al. 2024, where perturb_scale = shrink.)
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from continual.agents.agent import Agent, Context, Step, TaskStart, Update
from continual.schema import Fraction, NonNegative


@dataclass(frozen=True)
class ShrinkAndPerturb(Agent):
    """At every step it covers weights and biases, and leaves norms and the optimiser's state as they are.

    At a task's start (`every: task`), which it then knows, it covers all parameters, and the optimiser starts
    anew with `reset_optimizer`.
    """

    shrink: Fraction = 1e-4
    perturb_scale: NonNegative = 1e-2
    every: Literal["step", "task"] = "step"
    noise: Literal["sample", "initial"] = "sample"
    reset_optimizer: bool = True

    @property
    def sees_task_starts(self) -> bool:
        return self.every == "task"

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        if self.every == "task":
            return update
        noise = context.draw_initial() if self.noise == "sample" else context.initial
        moved = {name: self._moved(update.params[name], eps) for name, eps in noise.items()}
        return update._replace(params={**update.params, **moved})

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        noise = context.restarted(sample=self.noise == "sample")
        params = {name: self._moved(param, noise[name]) for name, param in update.params.items()}
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)

    def _moved(self, param: Tensor, eps: Tensor) -> Tensor:
        return (1 - self.shrink) * param + self.perturb_scale * eps
