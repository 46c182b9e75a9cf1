"""UPGD: utility-based perturbed gradient descent. Weights of little use are perturbed, useful ones protected.

u <- utility_decay u + (1 - utility_decay) (-g theta),  u^ = u / (1 - utility_decay^t)
s = sigmoid(u^ / max(all u^))                               scope: global
s = sigmoid(u^ / ||the row of u^||)                         scope: local
g <- (g + xi) (1 - s)                                       protecting
g <- g + xi (1 - s)                                         not protecting;  xi ~ N(0, noise^2)

(Elsayed & Mahmood 2024, "Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning",
arXiv 2404.00781, algorithms 1 and 2; code: mohmdelsayed/upgd.)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Context, Weights
from continual.schema import Decay, NonNegative


class Utility(NamedTuple):
    """u by parameter, and 1 - utility_decay^t as a running mean of 1: [], float64."""

    utility: Weights
    total: Tensor


@dataclass(frozen=True)
class UPGD(Agent):
    """Of all parameters. The paper's weight decay is that of optimizer=sgd, which is not gated either.

    `correct_max: false` divides by the largest u instead of u^, as the released code does.
    """

    utility_decay: Decay = 0.9999
    noise: NonNegative = 0.1
    scope: Literal["global", "local"] = "global"
    protecting: bool = True
    correct_max: bool = True

    def init(self, context: Context) -> Utility:
        device = context.key.device
        zeros = {n: torch.zeros(d.shape, device=device) for n, d in context.anatomy.distributions.items()}
        return Utility(zeros, torch.zeros((), dtype=torch.float64, device=device))

    def transform_gradients(
        self, gradients: Weights, params: Weights, state: Utility, context: Context
    ) -> tuple[Weights, Utility]:
        d = self.utility_decay
        u = {name: d * state.utility[name] - (1 - d) * g * params[name] for name, g in gradients.items()}
        total = d * state.total + (1 - d)
        corrected = {name: of / total.float() for name, of in u.items()}
        share = self._share_of_largest(corrected, corrected if self.correct_max else u)
        after = {}
        for name, g in gradients.items():
            xi = self.noise * random.normal(random.stream(context.key, name), g.shape)
            # 1 - sigmoid; on a CPU torch.sigmoid rounds the last few entries of a tensor otherwise.
            gate = 1 / (1 + torch.exp(share[name]))
            after[name] = (g + xi) * gate if self.protecting else g + xi * gate
        return after, Utility(u, total)

    def _share_of_largest(self, corrected: Weights, largest_of: Weights) -> Weights:
        if self.scope == "local":
            return {
                name: of / torch.linalg.vector_norm(_rows(of), dim=-1).clamp(min=1e-12).reshape(_per_row(of))
                for name, of in corrected.items()
            }
        # A negative maximum would turn the order around.
        largest = torch.stack([of.max() for of in largest_of.values()]).max().clamp(min=1e-12)
        return {name: of / largest for name, of in corrected.items()}


def _rows(of: Tensor) -> Tensor:
    """A weight as [outputs, inputs of an output]; a bias is one row."""
    return of.flatten(1) if of.ndim > 1 else of[None]


def _per_row(of: Tensor) -> tuple[int, ...]:
    return (-1, *[1] * (of.ndim - 1)) if of.ndim > 1 else (1,)
