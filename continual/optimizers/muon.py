"""Muon: momentum whose steps of matrices are made orthogonal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from continual.errors import ConfigError
from continual.optimizers.adam import Adam
from continual.optimizers.optimizer import Optimizer, OptimizerContext, Params, Role
from continual.schema import Count, Decay, Positive, SwitchableStrength, is_on


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024; code: KellerJordan/Muon) for hidden matrices, of kernels as [outputs, rest]:

    m <- momentum m + (1-momentum) g;  u <- (1-momentum) g + momentum m;  U <- u made orthogonal by iterations
    W <- (1 - lr weight_decay) W - lr sqrt(max(1, rows / columns)) U

    All else (a first convolution, output, biases, norms) has Adam with adam_lr, betas (.9, .95), eps 1e-10.
    """

    step_sizes: ClassVar[tuple[str, ...]] = ("lr", "adam_lr")

    lr: Positive = 0.02
    momentum: Decay = 0.95
    weight_decay: SwitchableStrength = 0.0
    iterations: Count = 5
    adam_lr: Positive = 3e-4

    def check(self, roles: Mapping[str, Role]) -> None:
        if "hidden" not in roles.values():
            raise ConfigError("optimizer: muon is for hidden matrices, and this network has none; use adamw.")

    def init(self, params: Params, context: OptimizerContext) -> Any:
        return self._adam().init(params, context)

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        hidden = [name for name in grads if context.roles[name] == "hidden"]
        others = {name: grad for name, grad in grads.items() if name not in hidden}
        of_adam, after_adam = self._adam().update(params, others, state, context)
        moments = {slot: {**before, **after_adam.slots[slot]} for slot, before in state.slots.items()}
        momentum = dict(moments["first_moment"])
        after = {}
        for name, param in params.items():
            if name not in hidden:
                after[name] = of_adam[name]
                continue
            grad = grads[name]
            momentum[name] = self.momentum * momentum[name] + (1 - self.momentum) * grad
            ahead = (1 - self.momentum) * grad + self.momentum * momentum[name]
            step = orthogonalised(ahead.flatten(1), self.iterations).reshape(param.shape)
            scale = max(1.0, len(param) / param[0].numel()) ** 0.5
            if is_on(self.weight_decay):
                param = (1 - self.lr * self.weight_decay) * param
            after[name] = param - self.lr * scale * step
        return after, after_adam._replace(slots={**moments, "first_moment": momentum})

    def prepared(self, state: Any) -> Any:
        return self._adam().prepared(state)

    def _adam(self) -> Adam:
        return Adam(lr=self.adam_lr, betas=[0.9, 0.95], eps=1e-10)


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """A matrix with all singular values about 1, by Newton-Schulz iterations of the fifth order."""
    x: Tensor = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.T if len(matrix) > matrix.shape[1] else x
