"""Stochastic gradient descent."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from continual.optimizers.optimizer import Optimizer, OptimizerContext, Params, decayed, zeros_like
from continual.schema import Positive, SwitchableDecay, SwitchableStrength, is_on


class Slots(NamedTuple):
    """State that is all shaped like the parameters."""

    slots: dict[str, Params]
    counts: dict[str, Tensor]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, optionally with (Nesterov) momentum; as torch.optim.SGD.

    g <- grad + weight_decay theta;  m <- momentum m + g;  theta <- theta - lr m
    """

    lr: Positive = 1e-2
    momentum: SwitchableDecay = 0.0
    weight_decay: SwitchableStrength = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not is_on(self.momentum):
            raise ValueError("nesterov: needs a momentum above 0.")

    def init(self, params: Params, context: OptimizerContext) -> Slots:
        return Slots({"momentum": zeros_like(params)} if is_on(self.momentum) else {}, {})

    def update(
        self, params: Params, grads: Params, state: Slots, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Slots]:
        grads = decayed(params, grads, self.weight_decay)
        slots: dict[str, Params] = {}
        if is_on(self.momentum):
            before = state.slots["momentum"]
            velocity = {name: self.momentum * before[name] + grads[name] for name in params}
            slots["momentum"] = velocity
            if self.nesterov:
                grads = {name: grads[name] + self.momentum * velocity[name] for name in params}
            else:
                grads = velocity
        return {name: params[name] - self.lr * grads[name] for name in params}, Slots(slots, {})
