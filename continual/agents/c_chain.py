"""C-CHAIN: what an update changes in the network's outputs on other inputs, its churn, is held down.

loss(theta) + lambda_t * mean (f_theta(x') - f_theta'(x'))^2                       distance: mse
loss(theta) + lambda_t * mean KL(softmax f_theta'(x'), softmax f_theta(x'))        distance: kl
lambda_t = relative_weight * mean |loss| / (mean churn + 1e-8)     both over the last `window` iterations
lambda_t = first_weight                                            in the first `warmup` iterations

theta' are the weights before the last update and x' the batch before the one that it was made on. An
iteration is `every` updates: its loss and churn are those of the last one, after which lambda changes.

(Tang et al. 2025, "Mitigating Plasticity Loss in Continual Reinforcement Learning by Reducing Churn", arXiv
2506.00592; code: bluecontra/C-CHAIN. The defaults are those of its PPO, whose iterations have 10 epochs of 32
batches; its double DQN has every=1, warmup=10000, window=50000. There x' is drawn from what the agent has
collected, whatever it updates on: on the update's own batch the churn would be what it has just learned.)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from continual.agents.agent import Agent, Anatomy, Batch, Context, Penalty, Step, Update, Weights
from continual.errors import ConfigError
from continual.schema import Count, NonNegative, Period


class Last(NamedTuple):
    """x' with f_theta'(x'), the last batch, and the last iterations' losses and churns, as rings [window]."""

    x_BCHW: Tensor
    logits_BK: Tensor
    newest_BCHW: Tensor
    losses: Tensor
    churns: Tensor


@dataclass(frozen=True)
class CChain(Agent):
    """f_theta'(x') needs no second network: each step computes it with the weights it began with. From RL."""

    relative_weight: NonNegative = 0.05
    first_weight: NonNegative = 100.0
    warmup: Period = 50
    window: Count = 100
    every: Period = 320
    distance: Literal["mse", "kl"] = "mse"

    def check(self, anatomy: Anatomy) -> None:
        if self.distance == "kl" and anatomy.batch.logits_BK[-1:] == (1,):
            raise ConfigError("agent.distance: kl compares probabilities, and the network has one output.")

    def init(self, context: Context) -> Last:
        batch = context.anatomy.batch
        shapes = (batch.x_BCHW, batch.logits_BK, batch.x_BCHW, (self.window,), (self.window,))
        return Last(*(torch.zeros(shape, device=context.key.device) for shape in shapes))

    def penalty(self, weights: Weights, state: Last, context: Context, batch: Batch) -> Penalty:
        iterations = context.step // self.every
        counted = iterations.clamp(min=1, max=self.window)
        loss, churn = state.losses.abs().sum() / counted, state.churns.sum() / counted
        strength = torch.where(
            iterations < self.warmup, self.first_weight, self.relative_weight * loss / (churn + 1e-8)
        )
        found = self.churn(weights, state, context, batch)
        return Penalty(strength * found, found)

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        state: Last = update.state
        place = torch.arange(self.window, device=context.key.device)
        is_last = (context.step + 1) % self.every == 0
        is_now = is_last & (place == context.step // self.every % self.window)
        losses = torch.where(is_now, step.loss(), state.losses)
        churns = torch.where(is_now, step.found, state.churns)
        logits_BK, _ = step.batch.forward(step.before, state.newest_BCHW)
        return update._replace(state=Last(state.newest_BCHW, logits_BK, step.batch.x_BCHW, losses, churns))

    def churn(self, weights: Weights, state: Last, context: Context, batch: Batch) -> Tensor:
        """How far f_theta(x') is from f_theta'(x'), 0-d; 0 in the first two steps, which have no x'."""
        logits_BK, _ = batch.forward(weights, state.x_BCHW)
        if self.distance == "mse":
            distance = ((logits_BK - state.logits_BK) ** 2).mean()
        else:
            now, then = F.log_softmax(logits_BK, 1), F.log_softmax(state.logits_BK, 1)
            distance = (then.exp() * (then - now)).sum(1).mean()
        return torch.where(context.step > 1, distance, 0.0)
