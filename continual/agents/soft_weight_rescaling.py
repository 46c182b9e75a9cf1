"""Soft weight rescaling: after every step, each layer's weights shrink a little towards their initial norm.

layers in order, C = 1 at first:
c = (rescale_rate ||W_0|| + (1 - rescale_rate) ||W||) / ||W||;  C <- C c;  W <- c W;  b <- C b

Of a network whose activations are homogeneous, such as ReLU, this only scales the outputs. A layer's
norm takes C back to 1, and its scale and shift are treated as (W, b): what follows goes on from their c.

(Oh et al. 2025, "Soft Weight Rescaling", arXiv 2507.04683, algorithm 1 and appendix D.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Context, Step, Update, module_of
from continual.networks.injection import trained_name
from continual.schema import Fraction


@dataclass(frozen=True)
class SoftWeightRescaling(Agent):
    """Norms are of whole tensors; the output layer is rescaled too."""

    rescale_rate: Fraction = 1e-4

    def init(self, context: Context) -> dict[str, Tensor]:
        return {
            name: _norm(value)
            for name, value in context.restarted().items()
            if name.endswith(".weight") and trained_name(name) == name
        }

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        params, rate = dict(update.params), self.rescale_rate
        so_far = torch.ones((), device=context.key.device)
        for name, first in update.state.items():
            norm = _norm(params[name])
            c = torch.where(norm > 0, (rate * first + (1 - rate) * norm) / norm, 1.0)
            is_norm = context.anatomy.roles[name] == "norm"
            so_far = c if is_norm else so_far * c
            params[name] = c * params[name]
            bias = f"{module_of(name)}.bias"
            if bias in params:
                params[bias] = so_far * params[bias]
        return update._replace(params=params)


def _norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight)
    return norm
