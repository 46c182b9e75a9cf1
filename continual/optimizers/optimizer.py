"""What an optimiser is: a pure (init, update) pair on the plain trees of one network.

`init(params, context)` gives the state; `update(params, grads, state, context)` gives new parameters and a
new state. The state's `slots` are trees shaped like the parameters (momentum, moments), and its `counts` the
steps since a unit was replaced, so that a method that replaces units can set both to zero without knowing
which optimiser it is. Results equal torch.optim's where there is such an optimiser.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from continual.networks.network import HiddenLayer
from continual.optimizers.schedules import Schedule
from continual.schema import SwitchableStrength, is_on

Params: TypeAlias = Mapping[str, Tensor]
# What a parameter is for: "input" is the weight of a convolution that reads the images, "hidden" any other
# matrix but the output's.
Role: TypeAlias = Literal["input", "hidden", "output", "bias", "norm"]


class OptimizerContext(NamedTuple):
    """What an optimiser may look at besides gradients and its own state.

    `key` is a key of this step (at `init`, of the run), `initial` are the weights at the start (theta_0),
    `roles` says of each parameter what it is for, and `replaced` are the layers whose units the agent
    replaces, none for most agents.
    """

    key: Tensor
    initial: Params
    roles: Mapping[str, Role]
    replaced: tuple[HiddenLayer, ...] = ()


class OptimizerState(Protocol):
    """A NamedTuple with these fields and what else an optimiser counts."""

    @property
    def slots(self) -> Mapping[str, Params]:
        """Trees like the parameters, by name."""

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """By layer of `replaced`, the steps since each unit was replaced: [units]; {} if nobody asks."""

    def _replace(self, **fields: Any) -> "OptimizerState": ...


@dataclass(frozen=True)
class Optimizer(ABC):
    """An update rule for one network's parameters, given the gradient of its loss.

    Before it, the gradient's norm is cut to `clip_norm`, if that is not 0; `schedule` changes the step sizes.
    """

    step_sizes: ClassVar[tuple[str, ...]] = ("lr",)
    """The fields that a schedule changes."""

    clip_norm: SwitchableStrength = field(default=0.0, kw_only=True)
    schedule: Schedule | None = field(default=None, kw_only=True)

    def check(self, roles: Mapping[str, Role]) -> None:
        """Raise ConfigError if it is not for a network whose parameters have these roles."""
        return

    @abstractmethod
    def init(self, params: Params, context: OptimizerContext) -> Any:
        """The state before the first step, an `OptimizerState`."""

    @abstractmethod
    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        """The parameters and the state after one step."""

    def prepared(self, state: Any) -> Any:
        """The state at the end of a step, after the agent has done to it what it does."""
        return state


def zeros_like(params: Params) -> dict[str, Tensor]:
    """A slot of zeros."""
    return {name: torch.zeros_like(param) for name, param in params.items()}


def decayed(params: Params, grads: Params, weight_decay: float) -> Params:
    """The gradients with weight_decay * theta added, unless it is off."""
    if not is_on(weight_decay):
        return grads
    return {name: grads[name] + weight_decay * params[name] for name in grads}
