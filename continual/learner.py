"""One replica's step: loss, gradient, optimiser, agent. Pure functions; no replica axis anywhere."""

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from continual import metrics, random
from continual.agents.agent import (
    Agent,
    Anatomy,
    Batch,
    BatchShape,
    Context,
    Step,
    TaskStart,
    Update,
    Weights,
    module_of,
    value_and_found,
    weight_names,
)
from continual.agents.composed import composed
from continual.errors import ConfigError
from continual.losses import CrossEntropy, Loss
from continual.networks import initialization
from continual.networks.initialization import Distribution
from continual.networks.module import check_parameters, frozen_names, running_statistics
from continual.networks.network import HiddenLayer, Network
from continual.optimizers.clipping import clipped
from continual.optimizers.optimizer import Optimizer, OptimizerContext, Role
from continual.schema import bind, is_on
from continual.tree import Tree

log = logging.getLogger(__name__)

_GRADIENTS_AT_A_TIME = 50

Numbers: TypeAlias = Mapping[str, Mapping[str, Tensor]]
# Named here because torch.compile cannot evaluate the annotations of functions within a step.
_Loss: TypeAlias = tuple[Tensor, Tensor, Weights, Weights]
_LossAndMore: TypeAlias = tuple[Tensor, _Loss]
_ObjectiveAndMore: TypeAlias = tuple[Tensor, tuple[_Loss, Tree]]
_Outputs: TypeAlias = tuple[Tensor, Weights]
_Batches: TypeAlias = Callable[[int], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Learner:
    """A network, an agent and an optimiser, as the functions `init` and `step` of one replica's state.

    State: `params` and `initial` (the weights at the start) by name; `buffers` (running statistics),
    if the network has any; `optimizer`; `agent`; and `online`, the sums of the current task: the loss's
    `measure` over examples (correct predictions, with cross-entropy), `loss` over steps, and `diverged_at`,
    the step (counted from 1) at which the loss stopped being finite, 0 if it never did. With
    `measures_plasticity` also `plasticity`, the sample plasticity summed over steps, which takes a second
    forward pass after each update.
    `numbers` holds what replicas may differ in: {"agent": {...}, "optimizer": {...}}, 0-d tensors.
    """

    network: nn.Module
    agent: Agent
    optimizer: Optimizer
    anatomy: Anatomy
    dtype: torch.dtype = torch.float32
    measures_plasticity: bool = False
    loss: Loss = field(default_factory=CrossEntropy)
    training_network: nn.Module | None = None
    """The network in training mode, where that is another function than `network`."""

    @classmethod
    def of(
        cls,
        network: nn.Module,
        agent: Agent,
        optimizer: Optimizer,
        dtype: torch.dtype = torch.float32,
        loss: Loss | None = None,
        batch: BatchShape | None = None,
    ) -> "Learner":
        """Put the parts together; ConfigError if the network cannot be trained as one of many.

        `loss` is cross-entropy if none is given; `batch` may be left out for an agent that remembers
        none. The network runs forwards and backwards in `dtype`, which it
        is turned into; parameters, loss, penalty and optimiser stay in float32, and features are turned back.
        """
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                raise ConfigError(
                    f"network: '{name}' is a dropout that draws from PyTorch's own random numbers, which no "
                    "replica owns; give forward a key and draw from that (continual.networks)."
                )
        check_parameters(network)
        hidden_layers, distributions = _hidden_layers(network), _distributions(network)
        weights = weight_names(network)
        roles = _roles(network, weights, hidden_layers)
        output = _output_layer(network, roles)
        anatomy = Anatomy(weights, hidden_layers, distributions, roles, batch or BatchShape(), output)
        composed(agent).check(anatomy)
        optimizer = composed(agent).trains_with(optimizer)
        optimizer.check(roles)
        network = network.to(dtype)
        training = copy.deepcopy(network).train() if running_statistics(network) else None
        loss = loss or CrossEntropy()
        return cls(network.eval(), agent, optimizer, anatomy, dtype, loss=loss, training_network=training)

    def to(self, device: torch.device) -> "Learner":
        """The learner of replicas on this device."""
        training = self.training_network
        return replace(
            self,
            network=self.network.to(device),
            training_network=None if training is None else training.to(device),
        )

    @property
    def sees_task_ends(self) -> bool:
        """Whether the agent is told when a task ends."""
        return composed(self.agent).sees_task_ends

    def init(self, key: Tensor, numbers: Numbers) -> Tree:
        """The state before the first step."""
        agent, optimizer = self._bound(numbers)
        params = initialization.draw(self.anatomy.distributions, random.stream(key, "weights"))
        initial = self._weights(params)
        step = torch.zeros((), dtype=torch.int64, device=key.device)
        context = Context(self.anatomy, initial, step, random.stream(key, "agent"))
        plasticity = torch.zeros((), dtype=torch.float64, device=key.device)
        buffers = {
            name: buffer.float() if buffer.is_floating_point() else buffer.clone()
            for name, buffer in running_statistics(self.network).items()
        }
        seen = self._seen_by_optimizer(agent, initial, random.stream(key, "optimizer"))
        return {
            "params": params,
            "initial": initial,
            **({"buffers": buffers} if buffers else {}),
            "optimizer": optimizer.init(params, seen),
            "agent": agent.init(context),
            "online": {
                "measure": torch.zeros((), dtype=self.loss.measure_dtype, device=key.device),
                "loss": torch.zeros((), dtype=torch.float64, device=key.device),
                "diverged_at": torch.zeros((), dtype=torch.int64, device=key.device),
                **({"plasticity": plasticity} if self.measures_plasticity else {}),
            },
        }

    def step(
        self,
        state: Tree,
        numbers: Numbers,
        x_BCHW: Tensor,
        y_B: Tensor,
        key: Tensor,
        step: Tensor,
        is_real_B: Tensor | None = None,
        task_start: Tensor | None = None,
    ) -> Tree:
        """The state after one batch. `step` counts the steps done before (0-d); `key` is the replica's.

        `task_start` is what `step` was at the start of the task (0-d; None: 0), for step sizes that change
        within it.
        `is_real_B` (bool) says which examples count, where the batch may be a partial one: the others repeat
        these, for whoever looks at the features.
        """
        agent, optimizer = self._bound(numbers)
        agent_key = random.fold(random.stream(key, "agent"), step)
        context = Context(self.anatomy, state["initial"], step, agent_key)

        buffers = state.get("buffers", {})
        forward_keys = self._forward_keys(key, "forward", step)

        def forward(params: Weights, x_BCHW: Tensor) -> _Outputs:
            return self._forward_in_training(params, buffers, x_BCHW, *forward_keys)[:2]

        def batch_seen(params: Weights, logits_BK: Tensor, features: Weights) -> Batch:
            return Batch(x_BCHW, y_B, logits_BK, features, lambda own, x: forward({**params, **own}, x))

        def mean_loss(params: Weights) -> _LossAndMore:
            logits_BK, features, after = self._forward_in_training(params, buffers, x_BCHW, *forward_keys)
            loss_B = self.loss.per_example(logits_BK, y_B)
            return _mean(loss_B, is_real_B), (loss_B, logits_BK, features, after)

        before, agent_state = agent.before_step(
            state["params"], state["agent"], lambda params: mean_loss(params)[0], context
        )

        def objective(params: Weights) -> _ObjectiveAndMore:
            mean, outputs = mean_loss(params)
            _, logits_BK, features, _ = outputs
            batch = batch_seen(params, logits_BK, features)
            penalty, found = value_and_found(
                agent.penalty(self._weights(params), agent_state, context, batch)
            )
            return mean if penalty is None else mean + penalty, (outputs, found)

        of_objective, (_, (outputs, found)) = grad_and_value(objective, has_aux=True)(before)
        loss_B, logits_BK, features, buffers_after = outputs
        grads, agent_state = agent.transform_gradients(of_objective, before, agent_state, context)

        def loss_gradients() -> Weights:
            grads: Weights = grad(mean_loss, has_aux=True)(before)[0] if agent.has_penalty else of_objective
            return grads

        cut: Weights = clipped(grads, optimizer.clip_norm) if is_on(optimizer.clip_norm) else grads
        if optimizer.schedule is not None:
            counts_from = task_start if optimizer.schedule.over == "task" else None
            done = step if counts_from is None else step - counts_from
            factor = optimizer.schedule.factor(done)
            scaled = {name: getattr(optimizer, name) * factor for name in optimizer.step_sizes}
            optimizer = bind(optimizer, scaled)
        optimizer_key = random.fold(random.stream(key, "optimizer"), step)
        seen = self._seen_by_optimizer(agent, state["initial"], optimizer_key)
        params, optimizer_state = optimizer.update(before, cut, state["optimizer"], seen)
        seen_step = Step(
            batch_seen(before, logits_BK, features),
            before,
            grads,
            loss_gradients,
            lambda: _mean(loss_B, is_real_B),
            found,
        )
        update = agent.after_update(Update(params, optimizer_state, agent_state), seen_step, context)

        online = state["online"]
        # In float64 the mean does not depend on the order of summation, which packing may change. The
        # penalty's value is never needed, so it is never computed: only its gradient is.
        loss = _mean(loss_B.to(torch.float64), is_real_B)
        measured_B = self.loss.measured(logits_BK, y_B)
        if is_real_B is not None:
            measured_B = torch.where(is_real_B, measured_B, 0)
        diverged_now = (online["diverged_at"] == 0) & ~torch.isfinite(loss)
        plasticity = {}
        if self.measures_plasticity:
            after_BK, _ = forward(update.params, x_BCHW)
            loss_after_B = self.loss.per_example(after_BK, y_B)
            shares_B = metrics.sample_plasticity(loss_B, loss_after_B)
            plasticity["plasticity"] = online["plasticity"] + _mean(shares_B, is_real_B)
        return {
            "params": update.params,
            "initial": state["initial"],
            **({"buffers": buffers_after} if buffers else {}),
            "optimizer": optimizer.prepared(update.optimizer),
            "agent": update.state,
            "online": {
                "measure": online["measure"] + measured_B.sum(),
                "loss": online["loss"] + loss,
                "diverged_at": torch.where(diverged_now, step + 1, online["diverged_at"]),
                **plasticity,
            },
        }

    def boundary(
        self, state: Tree, numbers: Numbers, key: Tensor, output_layer: str, optimizer_state: str
    ) -> Tree:
        """The state after what an environment does to every agent at a task's start (see `Environment`).

        `key` is the replica's for this task.
        """
        params, kept = dict(state["params"]), state["optimizer"]
        if output_layer != "keep":
            names = self.anatomy.output_parameters
            fresh = initialization.draw({name: self.anatomy.distributions[name] for name in names}, key)
            for name in names:
                params[name] = torch.zeros_like(fresh[name]) if output_layer == "zero" else fresh[name]
        if optimizer_state == "renew":
            agent, optimizer = self._bound(numbers)
            seen = self._seen_by_optimizer(agent, state["initial"], random.stream(key, "optimizer"))
            kept = optimizer.init(params, seen)
        return {**state, "params": params, "optimizer": kept}

    @property
    def sees_task_starts(self) -> bool:
        """Whether the agent acts when a task starts."""
        return composed(self.agent).sees_task_starts

    @property
    def decomposes(self) -> bool:
        """Whether a step of the agent's takes a matrix apart; see `Agent.decomposes`."""
        return composed(self.agent).decomposes

    @property
    def multiplies_vectors(self) -> bool:
        """Whether a step of the agent's has products with vectors; see `Agent.multiplies_vectors`."""
        return composed(self.agent).multiplies_vectors

    def start_task(
        self, state: Tree, numbers: Numbers, batch: _Batches, batches: int, key: Tensor, step: Tensor
    ) -> Tree:
        """The state with which a task starts, for agents that act then.

        `batch(j)` are images and labels of batch j of the task's first epoch, which has so many, and `step`'s
        `is_real_B`; `key` is the replica's for this task.
        """
        agent, optimizer = self._bound(numbers)
        context = Context(self.anatomy, state["initial"], step, random.stream(key, "agent at a task's start"))
        buffers = state.get("buffers", {})

        def gradient_on(number: int) -> Weights:
            x_BCHW, y_B, is_real_B = batch(number)
            forward_keys = self._forward_keys(key, "forward at a task's start", number)

            def loss(params: Weights) -> Tensor:
                logits_BK, _, _ = self._forward_in_training(params, buffers, x_BCHW, *forward_keys)
                return _mean(self.loss.per_example(logits_BK, y_B), is_real_B)

            grads: Weights = grad(loss)(state["params"])
            return grads

        seen = self._seen_by_optimizer(agent, state["initial"], random.stream(key, "optimizer"))
        start = TaskStart(batches, gradient_on, lambda params: optimizer.init(params, seen))
        update = agent.start_task(Update(state["params"], state["optimizer"], state["agent"]), start, context)
        return {
            **state,
            "params": update.params,
            "optimizer": optimizer.prepared(update.optimizer),
            "agent": update.state,
        }

    def end_task(self, state: Tree, numbers: Numbers, x_NCHW: Tensor, y_N: Tensor, key: Tensor) -> Tree:
        """The agent's state after a task with these training images; `key` is the replica's for this task."""
        agent, _ = self._bound(numbers)
        weights = self._weights(state["params"])
        norms = {name: param for name, param in state["params"].items() if name not in weights}
        norms |= state.get("buffers", {})

        def loss(weights: Weights, x_CHW: Tensor, y: Tensor) -> Tensor:
            logits_BK, _ = self.forward({**weights, **norms}, x_CHW[None])
            return self.loss.per_example(logits_BK, y[None]).mean()

        def squared_gradients(count: int) -> Weights:
            # Gradients of single examples are as large as the parameters each: a few at a time.
            each = vmap(grad(loss), (None, 0, 0))
            total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            # The first ones would not do: a task's images may lie class by class.
            places = random.subset(random.stream(key, "squared gradients"), count, len(x_NCHW))
            for start in range(0, len(places), _GRADIENTS_AT_A_TIME):
                few = places[start : start + _GRADIENTS_AT_A_TIME]
                for name, grads in each(weights, x_NCHW[few], y_N[few]).items():
                    total[name] = total[name] + (grads**2).sum(0)
            return {name: sums / len(places) for name, sums in total.items()}

        return agent.end_task(weights, state["agent"], squared_gradients)

    def gradient(self, params: Weights, x_BCHW: Tensor, y_B: Tensor) -> Weights:
        """The gradient of the mean loss on these images, by the name of the weight."""

        def loss(weights: Weights) -> Tensor:
            logits_BK, _ = self.forward({**params, **weights}, x_BCHW)
            return self.loss.per_example(logits_BK, y_B).mean()

        grads: Weights = grad(loss)(self._weights(params))
        return grads

    def evaluated(self, state: Tree, numbers: Numbers) -> dict[str, Tensor]:
        """The parameters and buffers to measure with, as `forward` takes them."""
        agent, _ = self._bound(numbers)
        return {**agent.evaluated(state["params"], state["agent"]), **state.get("buffers", {})}

    def forward(self, params: Weights, x_BCHW: Tensor) -> tuple[Tensor, Weights]:
        """The logits [B, K] and the features by layer, for these parameters and buffers, as in evaluation."""
        return self._outputs(self.network, params, x_BCHW)

    def _forward_in_training(
        self, params: Weights, buffers: Weights, x_BCHW: Tensor, *keys: Tensor
    ) -> tuple[Tensor, Weights, Weights]:
        """The same as in training, and what the buffers are then; `keys` are those of `_forward_keys`."""
        after = {name: buffer.clone() for name, buffer in buffers.items()}  # written in place by the network
        network = self.training_network or self.network
        return *self._outputs(network, {**params, **after}, x_BCHW, *keys), after

    def _forward_keys(self, key: Tensor, stream: str, counter: Tensor | int) -> tuple[Tensor, ...]:
        """What a forward in training draws from, for networks that draw: for others there is none to make."""
        draws = getattr(self.network, "is_random", False)
        return (random.fold(random.stream(key, stream), counter),) if draws else ()

    def _outputs(self, network: nn.Module, values: Weights, x_BCHW: Tensor, *keys: Tensor) -> _Outputs:
        rounded = {
            name: value.to(self.dtype) if name in self.anatomy.roles else value
            for name, value in values.items()
        }
        logits_BK, features = functional_call(network, rounded, (x_BCHW.to(self.dtype), *keys))
        if not isinstance(features, Mapping):
            features = {f"hidden{i}": feature for i, feature in enumerate(features)}
        return logits_BK.float(), {name: feature.float() for name, feature in features.items()}

    def _seen_by_optimizer(self, agent: Agent, initial: Weights, key: Tensor) -> OptimizerContext:
        return OptimizerContext(key, initial, self.anatomy.roles, agent.replaced(self.anatomy))

    def _weights(self, params: Weights) -> dict[str, Tensor]:
        return {name: params[name] for name in self.anatomy.weights}

    def _bound(self, numbers: Numbers) -> tuple[Agent, Optimizer]:
        agent = composed(bind(self.agent, numbers["agent"]))
        return agent, bind(self.optimizer, numbers["optimizer"])


def _hidden_layers(network: nn.Module) -> tuple[HiddenLayer, ...]:
    """Those that the network declares, but for frozen ones, whose units nothing may replace."""
    if not isinstance(network, Network):
        return ()
    frozen = {name.rpartition(".")[0] for name in frozen_names(network)}
    return tuple(h for h in network.hidden_layers if not frozen & {h.incoming, h.outgoing, h.norm})


def _distributions(network: nn.Module) -> dict[str, Distribution]:
    """The initial distribution of each parameter that is trained; says which values of a module are lost."""
    declares = type(network).initial_distribution if isinstance(network, Network) else None
    if isinstance(network, Network) and declares is not Network.initial_distribution:
        frozen = frozen_names(network)
        return {name: d for name, d in network.initial_distribution().items() if name not in frozen}
    found, replaced = initialization.as_set_up(network)
    if replaced:
        log.warning(
            "network: the initial values that %s gives to %s are replaced by draws from PyTorch's own "
            "distribution; an initial_distribution() says which to draw from.",
            type(network).__name__,
            ", ".join(map(repr, replaced)),
        )
    return found


def _roles(
    network: nn.Module, weights: Collection[str], hidden_layers: Sequence[HiddenLayer]
) -> dict[str, Role]:
    """What each parameter is for; the output is what the last hidden layer goes to, or the last matrix."""
    params = {name: param for name, param in network.named_parameters() if param.requires_grad}
    matrices = [name for name, param in params.items() if name in weights and param.ndim > 1]
    output = f"{hidden_layers[-1].outgoing}.weight" if hidden_layers else (matrices or [""])[-1]

    def role(name: str, param: Tensor) -> Role:
        if name not in weights:
            return "norm"
        if param.ndim < 2:
            return "bias"
        if name == output:
            return "output"
        return "input" if name == matrices[0] and param.ndim > 2 else "hidden"

    return {name: role(name, param) for name, param in params.items()}


def _output_layer(network: nn.Module, roles: Mapping[str, Role]) -> HiddenLayer | None:
    """The output layer as one whose units nothing reads; None if no layer is known to be that."""
    name = next((name for name, role in roles.items() if role == "output"), None)
    if name is None:
        return None
    return HiddenLayer(module_of(name), module_of(name), "", units=len(network.get_parameter(name)))


def _mean(values_B: Tensor, is_real_B: Tensor | None) -> Tensor:
    """The mean over the examples that count."""
    if is_real_B is None:
        return values_B.mean()
    return torch.where(is_real_B, values_B, 0).sum() / is_real_B.sum()
