"""RMSprop."""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.optimizers.optimizer import Optimizer, OptimizerContext, Params, decayed, zeros_like
from continual.optimizers.sgd import Slots
from continual.schema import Decay, NonNegative, Positive, SwitchableStrength


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), weight decay added to the gradient; as torch.optim.RMSprop.

    v <- alpha v + (1-alpha) g^2;  theta <- theta - lr g / (sqrt(v) + eps)
    """

    lr: Positive = 1e-3
    alpha: Decay = 0.99
    eps: NonNegative = 1e-8
    weight_decay: SwitchableStrength = 0.0

    def init(self, params: Params, context: OptimizerContext) -> Slots:
        return Slots({"second_moment": zeros_like(params)}, {})

    def update(
        self, params: Params, grads: Params, state: Slots, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Slots]:
        grads = decayed(params, grads, self.weight_decay)
        before = state.slots["second_moment"]
        second = {name: self.alpha * before[name] + (1 - self.alpha) * g * g for name, g in grads.items()}
        after = {
            name: params[name] - self.lr * g / (torch.sqrt(second[name]) + self.eps)
            for name, g in grads.items()
        }
        return after, Slots({"second_moment": second}, {})
