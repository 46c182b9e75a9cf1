"""One replica's step: loss, gradient, optimiser, agent. Pure functions; no replica axis anywhere."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional as F

from continual import metrics, random
from continual.agents.agent import Agent, Anatomy, Context, Update, Weights, weight_names
from continual.agents.composed import composed
from continual.errors import ConfigError
from continual.networks import initialization
from continual.networks.initialization import Distribution
from continual.networks.module import check_parameters, frozen_names
from continual.networks.network import HiddenLayer, Network
from continual.optimizers import Optimizer
from continual.schema import bind
from continual.tree import Tree

log = logging.getLogger(__name__)

_GRADIENTS_AT_A_TIME = 50

Numbers: TypeAlias = Mapping[str, Mapping[str, Tensor]]
# Named here because torch.compile cannot evaluate the annotations of functions within a step.
_LossAndMore: TypeAlias = tuple[Tensor, tuple[Tensor, Tensor, Weights]]


@dataclass(frozen=True)
class Learner:
    """A network, an agent and an optimiser, as the functions `init` and `step` of one replica's state.

    State: `params` and `initial` (the weights at the start) by parameter name; `optimizer`; `agent`; and
    `online`, the sums of the current task: `correct` predictions, `loss` summed over steps, and
    `diverged_at`, the step (counted from 1) at which the loss stopped being finite, 0 if it never did. With
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

    @classmethod
    def of(
        cls, network: nn.Module, agent: Agent, optimizer: Optimizer, dtype: torch.dtype = torch.float32
    ) -> "Learner":
        """Put the parts together; ConfigError if the network cannot be trained as one of many.

        The network runs forwards and backwards in `dtype`, which it is turned into; parameters, loss,
        penalty and optimiser stay in float32, and features are turned back.
        """
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise ConfigError(
                    f"network: '{name}' is a batch norm, whose running statistics no replica owns; "
                    "use a LayerNorm or GroupNorm."
                )
        check_parameters(network)
        hidden_layers, distributions = _hidden_layers(network), _distributions(network)
        anatomy = Anatomy(weight_names(network), hidden_layers, distributions)
        composed(agent).check(anatomy)
        return cls(network.to(dtype), agent, optimizer, anatomy, dtype)

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
        return {
            "params": params,
            "initial": initial,
            "optimizer": optimizer.init(params),
            "agent": agent.init(context),
            "online": {
                "correct": torch.zeros((), dtype=torch.int64, device=key.device),
                "loss": torch.zeros((), dtype=torch.float64, device=key.device),
                "diverged_at": torch.zeros((), dtype=torch.int64, device=key.device),
                **({"plasticity": plasticity} if self.measures_plasticity else {}),
            },
        }

    def step(
        self, state: Tree, numbers: Numbers, x_BCHW: Tensor, y_B: Tensor, key: Tensor, step: Tensor
    ) -> Tree:
        """The state after one batch. `step` counts the steps done before (0-d); `key` is the replica's."""
        agent, optimizer = self._bound(numbers)
        agent_key = random.fold(random.stream(key, "agent"), step)
        context = Context(self.anatomy, state["initial"], step, agent_key)

        def objective(params: Weights) -> _LossAndMore:
            logits_BK, features = self.forward(params, x_BCHW)
            loss_B = F.cross_entropy(logits_BK, y_B, reduction="none")
            penalty = agent.penalty(self._weights(params), state["agent"], context)
            total = loss_B.mean() if penalty is None else loss_B.mean() + penalty
            return total, (loss_B, logits_BK, features)

        grads, (_, (loss_B, logits_BK, features)) = grad_and_value(objective, has_aux=True)(state["params"])
        params, optimizer_state = optimizer.update(state["params"], grads, state["optimizer"])
        update = Update(params, optimizer_state["slots"], state["agent"])
        update = agent.after_update(update, features, context)

        online = state["online"]
        # In float64 the mean does not depend on the order of summation, which packing may change. The
        # penalty's value is never needed, so it is never computed: only its gradient is.
        loss = loss_B.to(torch.float64).mean()
        diverged_now = (online["diverged_at"] == 0) & ~torch.isfinite(loss)
        plasticity = {}
        if self.measures_plasticity:
            after_BK, _ = self.forward(update.params, x_BCHW)
            loss_after_B = F.cross_entropy(after_BK, y_B, reduction="none")
            plasticity["plasticity"] = online["plasticity"] + metrics.sample_plasticity(loss_B, loss_after_B)
        return {
            "params": update.params,
            "initial": state["initial"],
            "optimizer": {**optimizer_state, "slots": update.slots},
            "agent": update.state,
            "online": {
                "correct": online["correct"] + (logits_BK.argmax(-1) == y_B).sum(),
                "loss": online["loss"] + loss,
                "diverged_at": torch.where(diverged_now, step + 1, online["diverged_at"]),
                **plasticity,
            },
        }

    def end_task(self, state: Tree, numbers: Numbers, x_NCHW: Tensor, y_N: Tensor, key: Tensor) -> Tree:
        """The agent's state after a task with these training images; `key` is the replica's for this task."""
        agent, _ = self._bound(numbers)
        weights = self._weights(state["params"])
        norms = {name: param for name, param in state["params"].items() if name not in weights}

        def loss(weights: Weights, x_CHW: Tensor, y: Tensor) -> Tensor:
            logits_BK, _ = self.forward({**weights, **norms}, x_CHW[None])
            return F.cross_entropy(logits_BK, y[None])

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
        """The gradient of the mean cross-entropy on these images, by the name of the weight."""

        def loss(weights: Weights) -> Tensor:
            logits_BK, _ = self.forward({**params, **weights}, x_BCHW)
            return F.cross_entropy(logits_BK, y_B)

        grads: Weights = grad(loss)(self._weights(params))
        return grads

    def forward(self, params: Weights, x_BCHW: Tensor) -> tuple[Tensor, Weights]:
        """The logits [B, K] and the features by layer, for these parameters."""
        rounded = {name: param.to(self.dtype) for name, param in params.items()}
        logits_BK, features = functional_call(self.network, rounded, (x_BCHW.to(self.dtype),))
        if not isinstance(features, Mapping):
            features = {f"hidden{i}": feature for i, feature in enumerate(features)}
        return logits_BK.float(), {name: feature.float() for name, feature in features.items()}

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
