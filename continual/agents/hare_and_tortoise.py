"""Hare and Tortoise: a fast network trains, a slow one follows it and takes it back now and then.

s <- momentum s + (1 - momentum) theta     after every step
theta <- s                                 every `period` steps; the optimiser's moments stay

(Lee et al. 2024, "Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise Networks",
arXiv 2406.02596; code: dojeon-ai/Hare-Tortoise.)
"""

from dataclasses import dataclass

import torch

from continual.agents.agent import Agent, Context, Step, Update, Weights
from continual.schema import Decay, Period


@dataclass(frozen=True)
class HareAndTortoise(Agent):
    """Tests and measures are of the slow network s; the online accuracy is the fast one's. All parameters."""

    momentum: Decay = 0.999
    period: Period = 6250

    def init(self, context: Context) -> Weights:
        return context.restarted()

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        m = self.momentum
        slow = {name: m * s + (1 - m) * update.params[name] for name, s in update.state.items()}
        is_due = (context.step + 1) % self.period == 0
        params = {name: torch.where(is_due, slow[name], fast) for name, fast in update.params.items()}
        return update._replace(params=params, state=slow)

    def evaluated(self, params: Weights, state: Weights) -> Weights:
        return state
