"""Adam with decoupled weight decay."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from continual.optimizers.adam import Adam
from continual.optimizers.optimizer import OptimizerContext, Params
from continual.schema import SwitchableStrength, is_on


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019); as torch.optim.AdamW.

    theta <- (1 - lr weight_decay) theta, then Adam's step
    """

    weight_decay: SwitchableStrength = 1e-2

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        if is_on(self.weight_decay):
            params = {name: (1 - self.lr * self.weight_decay) * param for name, param in params.items()}
        return self.step(params, grads, state, context)
