"""Calibrated partial resets: units move a little way to fresh ones, further the less gradient they get.

s_u = mean |dL/dW_in,u| / (mean over the layer's units of it + 1e-8)
u <- utility_decay u + (1 - utility_decay) s_u,  u = 1 at the start
every `period` steps:  r = reset_rate T(u);  W_in <- (1 - r) W_in + r fresh;  W_out <- (1 - r) W_out;  u <- 1

T(u) = min(1, 2 sigmoid(-kappa (u - threshold)))     cpr   (CPR, arXiv 2607.24996)
       sigmoid(-kappa (u - 1))                       ccbp  (CCBP, ICLR 2026)
       min(1, exp(-kappa (u - threshold)))           exp

W_in is a unit's row of the incoming weight, W_out its columns of the outgoing one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from continual.agents.agent import Agent, Anatomy, Context, Step, Update
from continual.agents.units import check_units, outgoing
from continual.schema import Decay, Fraction, Period, Positive


@dataclass(frozen=True)
class CalibratedPartialResets(Agent):
    """L is the loss on the batch without penalty. Biases and the optimiser's state stay."""

    reset_rate: Fraction = 0.015
    period: Period = 1000
    utility_decay: Decay = 0.99
    kappa: Positive = 16.0
    threshold: Positive = 1.0
    transform: Literal["cpr", "ccbp", "exp"] = "cpr"

    def check(self, anatomy: Anatomy) -> None:
        check_units(anatomy, "calibrated_partial_resets")

    def init(self, context: Context) -> dict[str, Tensor]:
        device = context.key.device
        return {layer.name: torch.ones(layer.units, device=device) for layer in context.anatomy.hidden_layers}

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = (context.step + 1) % self.period == 0
        params, d = dict(update.params), self.utility_decay
        gradients, fresh, after = step.loss_gradients(), context.draw_initial(), {}
        for layer in context.anatomy.hidden_layers:
            name = f"{layer.incoming}.weight"
            utility_U = d * update.state[layer.name] + (1 - d) * relative_size(gradients[name])
            r_U = torch.where(is_due, self.reset_rate * self.calibrated(utility_U), 0.0)
            rows = r_U.reshape(-1, *[1] * (params[name].ndim - 1))
            params[name] = (1 - rows) * params[name] + rows * fresh[name]
            weight_OUS = outgoing(layer, params)
            name = f"{layer.outgoing}.weight"
            params[name] = ((1 - r_U[:, None]) * weight_OUS).reshape(params[name].shape)
            after[layer.name] = torch.where(is_due, 1.0, utility_U)
        return update._replace(params=params, state=after)

    def calibrated(self, utility_U: Tensor) -> Tensor:
        """T of the equations above, [U]."""
        threshold = 1.0 if self.transform == "ccbp" else self.threshold
        # By exp, because on a CPU torch.sigmoid rounds the last few entries of a tensor otherwise.
        grown_U = torch.exp(self.kappa * (utility_U - threshold))
        if self.transform == "ccbp":
            return 1 / (1 + grown_U)
        return (2 / (1 + grown_U) if self.transform == "cpr" else 1 / grown_U).clamp(max=1.0)


def relative_size(gradient: Tensor) -> Tensor:
    """s of the equations above, [U], from the gradient of the incoming weight."""
    size_U = gradient.flatten(1).abs().mean(1)
    return size_U / (size_U.mean() + 1e-8)
