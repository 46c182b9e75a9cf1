"""AdamO: Adam, and a decoupled pull of every matrix towards an orthogonal one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from continual.optimizers.adam import Adam
from continual.optimizers.optimizer import OptimizerContext, Params
from continual.schema import NonNegative, Positive


@dataclass(frozen=True)
class AdamO(Adam):
    """AdamO (arXiv 2606.09762, equations 16, 19 and 20): Adam's step, and then for every weight matrix W

    W <- W - lr orthogonality 4 W (W^T W - I)        or 4 (W W^T - I) W where that product is the smaller

    The paper starts from network.init=orthogonal.
    """

    lr: Positive = 1e-4
    orthogonality: NonNegative = 1e-3

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        after, state = super().update(params, grads, state, context)
        for name, param in after.items():
            if context.roles[name] in ("input", "hidden", "output"):
                pull = gram_gradient(param.flatten(1)).reshape(param.shape)
                after[name] = param - self.lr * self.orthogonality * pull
        return after, state


def gram_gradient(matrix: Tensor) -> Tensor:
    """The gradient of ||W^T W - I||_F^2 or of ||W W^T - I||_F^2, of the smaller of the two products."""
    rows, columns = matrix.shape
    identity = torch.eye(min(rows, columns), device=matrix.device)
    if rows < columns:
        return 4 * (matrix @ matrix.T - identity) @ matrix
    return 4 * matrix @ (matrix.T @ matrix - identity)
