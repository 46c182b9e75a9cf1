"""What an agent is: what it adds to the loss, and what it does to the network after a step.

An agent is a frozen dataclass of its numbers and a few pure functions of one network; it knows nothing of
replicas. Within a step the fields that are per replica (`continual.schema`) hold 0-d tensors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from continual.networks import initialization
from continual.networks.activations import LearntActivation
from continual.networks.initialization import Distribution
from continual.networks.network import HiddenLayer
from continual.tree import Tree

Weights: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Anatomy:
    """The network's structure, the same for all replicas and at all times.

    `weights` names the parameters that penalties cover: weights and biases, never those of a norm or an
    activation.
    """

    weights: tuple[str, ...]
    hidden_layers: tuple[HiddenLayer, ...]
    distributions: Mapping[str, Distribution]


class Context(NamedTuple):
    """What an agent may look at besides its own state.

    `initial` are the weights at the start (theta_0), `step` counts the steps done since then (0-d), and
    `key` is a key of this step and this agent.
    """

    anatomy: Anatomy
    initial: Weights
    step: Tensor
    key: Tensor

    def draw_initial(self) -> dict[str, Tensor]:
        """A draw of the weights from their initial distribution; always the same within a step."""
        distributions = {name: self.anatomy.distributions[name] for name in self.anatomy.weights}
        return initialization.draw(distributions, self.key)

    def distance(self, weights: Weights, from_sample: bool = False) -> dict[str, Tensor]:
        """theta - theta_0 by the name of the weight; `from_sample` takes a fresh draw for theta_0."""
        origin = self.draw_initial() if from_sample else self.initial
        return {name: weight - origin[name] for name, weight in weights.items()}


class Update(NamedTuple):
    """One network right after the optimiser's step, with the optimiser's slots and the agent's state."""

    params: dict[str, Tensor]
    slots: Tree
    state: Tree


@dataclass(frozen=True)
class Agent:
    """Adds nothing and changes nothing; the methods derive from it and override what they need.

    `plus` is a second agent that works beside this one (`continual.agents.composed`).
    """

    plus: "Agent | None" = field(default=None, kw_only=True)

    def check(self, anatomy: Anatomy) -> None:
        """Raise ConfigError, in one sentence, if the method cannot work on this network."""

    def init(self, context: Context) -> Tree:
        """The agent's own state before the first step: a tree of tensors."""
        return {}

    def penalty(self, weights: Weights, state: Tree, context: Context) -> Tensor | None:
        """What is added to the loss (0-d), or None. `weights` are those that penalties cover."""
        return None

    def after_update(self, update: Update, features: Weights, context: Context) -> Update:
        """What follows the optimiser's step.

        `features` are the hidden layers' outputs on the batch, from before the step. An entry of the
        update that is returned as it came (the same object) costs nothing.
        """
        return update

    def end_task(self, weights: Weights, state: Tree, squared_gradients: Callable[[int], Weights]) -> Tree:
        """The agent's state after the last step of a task; called only for agents that override it.

        `squared_gradients(n)` is the mean over the task's first n training images of the squared gradient
        of each one's log-likelihood.
        """
        return state

    @property
    def sees_task_ends(self) -> bool:
        """Whether this agent is told when a task ends."""
        return type(self).end_task is not Agent.end_task


def weight_names(network: nn.Module) -> tuple[str, ...]:
    """The names of all parameters but those of norms and activations and those that are frozen."""
    others = (nn.LayerNorm, nn.GroupNorm, LearntActivation)
    return tuple(
        name
        for path, module in network.named_modules()
        if not isinstance(module, others)
        for name, param in module.named_parameters(path, recurse=False)
        if param.requires_grad
    )


def half_square(distance: Weights) -> Tensor:
    """||d||^2 / 2 over all weights, 0-d."""
    return sum_over(distance, lambda name: distance[name] ** 2) / 2


def sum_over(weights: Weights, term: Callable[[str], Tensor]) -> Tensor:
    """The sum of all entries of a term over all weights, 0-d; `term` maps a weight's name to a tensor."""
    sums = [term(name).sum() for name in weights]
    return sum(sums[1:], sums[0])
