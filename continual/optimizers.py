"""Optimisers as pure (init, update) pairs on the plain trees of one network.

`init(params)` gives the state; `update(params, grads, state)` gives new parameters and a new state. The
state's `slots` are trees shaped like the parameters (momentum, moments), so that a method that replaces
units can set their entries to zero without knowing which optimiser it is. Results equal torch.optim's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge, Lt, MaxLen, MinLen
from torch import Tensor

from continual.schema import Positive, SwitchableDecay, SwitchableStrength, is_on
from continual.tree import Tree

Params: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Optimizer(ABC):
    """An update rule for one network's parameters, given the gradient of its loss."""

    @abstractmethod
    def init(self, params: Params) -> Tree:
        """The state before the first step: `slots`, trees like `params`, and what else it counts."""

    @abstractmethod
    def update(self, params: Params, grads: Params, state: Tree) -> tuple[dict[str, Tensor], Tree]:
        """The parameters and the state after one step."""


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

    def init(self, params: Params) -> Tree:
        slots = {}
        if is_on(self.momentum):
            slots["momentum"] = _zeros_like(params)
        return {"slots": slots}

    def update(self, params: Params, grads: Params, state: Tree) -> tuple[dict[str, Tensor], Tree]:
        grads = _decayed(params, grads, self.weight_decay)
        slots = {}
        if is_on(self.momentum):
            before = state["slots"]["momentum"]
            velocity = {name: self.momentum * before[name] + grads[name] for name in params}
            slots["momentum"] = velocity
            if self.nesterov:
                grads = {name: grads[name] + self.momentum * velocity[name] for name in params}
            else:
                grads = velocity
        return {name: params[name] - self.lr * grads[name] for name in params}, {"slots": slots}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), weight decay added to the gradient; as torch.optim.Adam.

    m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
    theta <- theta - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)
    """

    lr: Positive = 1e-3
    betas: Annotated[list[Annotated[float, Ge(0), Lt(1)]], MinLen(2), MaxLen(2)] = field(
        default_factory=lambda: [0.9, 0.999]
    )
    eps: Annotated[float, Ge(0)] = 1e-8
    weight_decay: SwitchableStrength = 0.0

    def init(self, params: Params) -> Tree:
        count = torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device)
        slots = {"first_moment": _zeros_like(params), "second_moment": _zeros_like(params)}
        return {"count": count, **self._corrections(count + 1), "slots": slots}

    def update(self, params: Params, grads: Params, state: Tree) -> tuple[dict[str, Tensor], Tree]:
        grads = _decayed(params, grads, self.weight_decay)
        beta1, beta2 = self.betas
        count = state["count"] + 1
        step_size = self.lr * state["first_correction"]
        first, second, after = {}, {}, {}
        for name, grad in grads.items():
            first[name] = beta1 * state["slots"]["first_moment"][name] + (1 - beta1) * grad
            second[name] = beta2 * state["slots"]["second_moment"][name] + (1 - beta2) * grad * grad
            root = torch.sqrt(second[name]) * state["second_correction"]
            after[name] = params[name] - step_size * first[name] / (root + self.eps)
        slots = {"first_moment": first, "second_moment": second}
        return after, {"count": count, **self._corrections(count + 1), "slots": slots}

    def _corrections(self, count: Tensor) -> Tree:
        """1 / (1 - b1^t) and 1 / sqrt(1 - b2^t) of a step, made in float64 one step ahead.

        Computed within the step, the compiler would repeat the powers for every parameter's entry.
        """
        beta1, beta2 = self.betas
        return {
            "first_correction": (1 / (1 - beta1**count)).to(torch.float32),
            "second_correction": torch.rsqrt(1 - beta2**count).to(torch.float32),
        }


def _zeros_like(params: Params) -> dict[str, Tensor]:
    return {name: torch.zeros_like(param) for name, param in params.items()}


def _decayed(params: Params, grads: Params, weight_decay: float) -> Params:
    if not is_on(weight_decay):
        return grads
    return {name: grads[name] + weight_decay * params[name] for name in grads}
