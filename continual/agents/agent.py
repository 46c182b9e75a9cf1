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
from continual.networks.injection import held_names, trained_name
from continual.networks.network import HiddenLayer
from continual.optimizers.optimizer import Optimizer, OptimizerState, Role
from continual.tree import Tree

Weights: TypeAlias = Mapping[str, Tensor]


class BatchShape(NamedTuple):
    """The shapes of a batch's inputs, [B, C, H, W], and of what the network makes of it, [B, K]; float32."""

    x_BCHW: tuple[int, ...] = ()
    logits_BK: tuple[int, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """The network's structure and its batches', the same for all replicas and at all times.

    `weights` names the parameters that penalties cover: weights and biases, never those of a norm or an
    activation. `roles` says of each parameter what it is for. An agent that remembers batches lays out its
    state by `batch`. The units of `output_layer`, where one is known to be it, are read by no layer.
    """

    weights: tuple[str, ...]
    hidden_layers: tuple[HiddenLayer, ...]
    distributions: Mapping[str, Distribution]
    roles: Mapping[str, Role]
    batch: BatchShape
    output_layer: HiddenLayer | None = None

    @property
    def output_parameters(self) -> tuple[str, ...]:
        """The names of the output layer's weight and bias, and of what is held in their place.

        None if no layer is known to be that.
        """
        modules = {module_of(name) for name, role in self.roles.items() if role == "output"}
        return tuple(name for name in self.roles if module_of(trained_name(name)) in modules)


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

    def restarted(self, sample: bool = False) -> dict[str, Tensor]:
        """All parameters as at the start, those of norms and activations too; `sample` draws weights anew."""
        drawn = initialization.draw(self.anatomy.distributions, self.key)
        return drawn if sample else {**drawn, **self.initial}

    def distance(self, weights: Weights, from_sample: bool = False) -> dict[str, Tensor]:
        """theta - theta_0 by the name of the weight; `from_sample` takes a fresh draw for theta_0."""
        origin = self.draw_initial() if from_sample else self.initial
        return {name: weight - origin[name] for name, weight in weights.items()}


class Batch(NamedTuple):
    """A batch and what the network made of it with the parameters from before the step."""

    x_BCHW: Tensor
    y_B: Tensor
    logits_BK: Tensor
    features: Weights
    """The hidden layers' outputs by name."""
    forward: Callable[[Weights, Tensor], tuple[Tensor, Weights]]
    """The logits and features of other images or with other parameters; the rest is as in this step."""


class Penalty(NamedTuple):
    """What is added to the loss (0-d), and what was found on the way that `after_update` is to know."""

    value: Tensor
    found: Tree


class Step(NamedTuple):
    """What led to an update: the batch, the parameters before it, and the gradient that was followed."""

    batch: Batch
    before: Weights
    gradients: Weights
    """Of loss + penalty, as `transform_gradients` left it."""
    loss_gradients: Callable[[], Weights]
    """Of the loss alone, before `transform_gradients`; with a penalty, this is a second pass backwards."""
    loss: Callable[[], Tensor]
    """The mean loss on the batch, 0-d, without penalty and with the parameters before it."""
    found: Tree = None
    """What the agent's penalty found, if it is a `Penalty`."""

    @property
    def features(self) -> Weights:
        """The hidden layers' outputs on the batch, by name."""
        return self.batch.features


class TaskStart(NamedTuple):
    """What an agent may ask when a task starts, before its first step."""

    batches: int
    """How many batches the task's first epoch has."""
    gradient_on: Callable[[int], Weights]
    """The gradient of the mean loss on batch j of the first epoch, with the parameters as they came."""
    fresh_optimizer: Callable[[Weights], OptimizerState]
    """The optimiser's state before a first step, for these parameters."""


class Update(NamedTuple):
    """One network right after the optimiser's step, with the optimiser's state and the agent's."""

    params: dict[str, Tensor]
    optimizer: OptimizerState
    state: Tree


@dataclass(frozen=True)
class Agent:
    """Adds nothing and changes nothing; the methods derive from it and override what they need.

    `plus` is a second agent that works beside this one (`continual.agents.composed`).
    """

    plus: "Agent | None" = field(default=None, kw_only=True)

    def check(self, anatomy: Anatomy) -> None:
        """Raise ConfigError, in one sentence, if the method cannot work on this network."""

    def trains_with(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser to train with, given the configured one; ConfigError if that will not do."""
        return optimizer

    def init(self, context: Context) -> Tree:
        """The agent's own state before the first step: a tree of tensors."""
        return {}

    def penalty(
        self, weights: Weights, state: Tree, context: Context, batch: Batch
    ) -> Tensor | Penalty | None:
        """What is added to the loss (0-d), or None. `weights` are those that penalties cover."""
        return None

    def before_step(
        self, params: Weights, state: Tree, loss_at: Callable[[Weights], Tensor], context: Context
    ) -> tuple[Weights, Tree]:
        """The parameters to begin the step from and the agent's state, given those from the last step.

        `loss_at(params)` is the mean loss on the batch with other parameters, 0-d, without penalty; each
        call costs a pass forwards.
        """
        return params, state

    def transform_gradients(
        self, gradients: Weights, params: Weights, state: Tree, context: Context
    ) -> tuple[Weights, Tree]:
        """The gradients to hand to the optimiser and the agent's state, given those of loss + penalty."""
        return gradients, state

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        """What follows the optimiser's step.

        An entry of the update that is returned as it came (the same object) costs nothing.
        """
        return update

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        """What precedes the first step of a task other than the first; called only if overridden.

        It happens once: a run that is resumed within the task is past it. It runs outside the compiled step.
        """
        return update

    def end_task(self, weights: Weights, state: Tree, squared_gradients: Callable[[int], Weights]) -> Tree:
        """The agent's state after the last step of a task; called only for agents that override it.

        `squared_gradients(n)` is the mean over the task's first n training images of the squared gradient
        of each one's log-likelihood.
        """
        return state

    def evaluated(self, params: Weights, state: Tree) -> Weights:
        """The parameters to measure with, where they are not those that are trained."""
        return params

    def replaced(self, anatomy: Anatomy) -> tuple[HiddenLayer, ...]:
        """The layers whose units are replaced, so that the optimiser has to count their steps."""
        return ()

    @property
    def decomposes(self) -> bool:
        """Whether a step takes a matrix apart (singular values), by a library that must not see others'."""
        return False

    @property
    def multiplies_vectors(self) -> bool:
        """Whether a step multiplies matrices by vectors: for several replicas the library does otherwise."""
        return False

    @property
    def has_penalty(self) -> bool:
        """Whether this agent may add something to the loss."""
        return type(self).penalty is not Agent.penalty

    @property
    def sees_task_starts(self) -> bool:
        """Whether this agent acts when a task starts."""
        return type(self).start_task is not Agent.start_task

    @property
    def sees_task_ends(self) -> bool:
        """Whether this agent is told when a task ends."""
        return type(self).end_task is not Agent.end_task


def value_and_found(penalty: Tensor | Penalty | None) -> tuple[Tensor | None, Tree]:
    """The two parts of what `Agent.penalty` returns."""
    return penalty if isinstance(penalty, Penalty) else (penalty, {})


def weight_names(network: nn.Module) -> tuple[str, ...]:
    """The names of all parameters but those of norms and activations and those that are frozen or held."""
    others = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, LearntActivation)
    held = set(held_names(network))
    return tuple(
        name
        for path, module in network.named_modules()
        if not isinstance(module, others)
        for name, param in module.named_parameters(path, recurse=False)
        if param.requires_grad and name not in held
    )


def module_of(name: str) -> str:
    """The name of the module that a parameter belongs to."""
    return name.rpartition(".")[0]


def fan_in(name: str, params: Weights) -> int:
    """How many inputs an output of the layer reads that this weight or bias belongs to."""
    return params.get(f"{module_of(name)}.weight", params[name])[0].numel()


def matrices(weights: Weights, context: "Context", *roles: Role) -> dict[str, Tensor]:
    """The weights that are for one of these roles, each as [outputs, inputs of an output]."""
    return {n: w.flatten(1) for n, w in weights.items() if context.anatomy.roles[n] in roles}


def half_square(distance: Weights) -> Tensor:
    """||d||^2 / 2 over all weights, 0-d."""
    return sum_over(distance, lambda name: distance[name] ** 2) / 2


def sum_over(weights: Weights, term: Callable[[str], Tensor]) -> Tensor:
    """The sum of all entries of a term over all weights, 0-d; `term` maps a weight's name to a tensor."""
    sums = [term(name).sum() for name in weights]
    return sum(sums[1:], sums[0])
