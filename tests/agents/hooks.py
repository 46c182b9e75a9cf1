"""A small agent, optimiser or network for each thing that a method may see and do."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from continual import random
from continual.agents.agent import Agent, Batch, Context, Step, TaskStart, Update, Weights
from continual.networks.network import Network
from continual.optimizers.optimizer import Optimizer, OptimizerContext, Params
from continual.optimizers.sgd import Slots
from continual.schema import Positive
from continual.tree import Tree


@dataclass(frozen=True)
class Noisy(Agent):
    """g' = g / (1 + n) + scale * noise, n the steps so far."""

    scale: Positive = 0.1

    def init(self, context: Context) -> Tensor:
        return torch.zeros((), device=context.key.device)

    def transform_gradients(
        self, gradients: Weights, params: Weights, state: Tensor, context: Context
    ) -> tuple[Weights, Tensor]:
        noise = {name: random.normal(random.stream(context.key, name), g.shape) for name, g in params.items()}
        return {name: g / (1 + state) + self.scale * noise[name] for name, g in gradients.items()}, state + 1


@dataclass(frozen=True)
class Undoing(Agent):
    """theta' = theta + share * (before - theta) - 0.1 * g + 0.2 * g of the loss alone."""

    share: Positive = 0.5

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        of_loss = step.loss_gradients()
        params = {
            name: param
            + self.share * (step.before[name] - param)
            - 0.1 * step.gradients[name]
            + 0.2 * of_loss[name]
            for name, param in update.params.items()
        }
        return update._replace(params=params)


@dataclass(frozen=True)
class Starting(Agent):
    """At a task's start: theta' = theta / 2 - the gradients on all batches; the optimiser starts anew."""

    def init(self, context: Context) -> Tensor:
        return torch.zeros((), device=context.key.device)

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        params = {name: param / 2 for name, param in update.params.items()}
        for number in range(start.batches):
            gradients = start.gradient_on(number)
            params = {name: param - gradients[name] for name, param in params.items()}
        noise = 0.1 * random.normal(context.key, params["output.bias"].shape)
        params["output.bias"] = params["output.bias"] + noise
        return Update(params, start.fresh_optimizer(params), update.state + 1)


@dataclass(frozen=True)
class Averaging(Agent):
    """Measured is s <- 0.9 s + 0.1 theta."""

    def init(self, context: Context) -> Weights:
        return dict(context.initial)

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        mean = {name: 0.9 * old + 0.1 * update.params[name] for name, old in update.state.items()}
        return update._replace(state=mean)

    def evaluated(self, params: Weights, state: Weights) -> Weights:
        return {**params, **state}


class Last(NamedTuple):
    x_BCHW: Tensor
    weights: Weights


@dataclass(frozen=True)
class Comparing(Agent):
    """+ strength * mean (f_theta(x') - f_theta'(x'))^2, x' the last batch and theta' the last weights,
    + 0.1 * mean |h| of the first layer + 0.01 * mean (f_theta(x) - y)^2"""

    strength: Positive = 0.3

    def init(self, context: Context) -> Last:
        shape = context.anatomy.batch.x_BCHW
        return Last(torch.zeros(shape, device=context.key.device), dict(context.initial))

    def penalty(self, weights: Weights, state: Last, context: Context, batch: Batch) -> Tensor:
        now, _ = batch.forward(weights, state.x_BCHW)
        then, _ = batch.forward(state.weights, state.x_BCHW)
        first = next(iter(batch.features.values()))
        error = ((batch.logits_BK - batch.y_B[:, None]) ** 2).mean()
        return self.strength * ((now - then) ** 2).mean() + 0.1 * first.abs().mean() + 0.01 * error

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        weights = {name: step.before[name] for name in update.state.weights}
        return update._replace(state=Last(step.batch.x_BCHW, weights))


@dataclass(frozen=True)
class Pulled(Optimizer):
    """Hidden matrices move towards where they began, biases at random, the output by its gradient."""

    lr: Positive = 0.05

    def init(self, params: Params, context: OptimizerContext) -> Slots:
        return Slots({}, {})

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        after = {}
        for name, param in params.items():
            match context.roles[name]:
                case "hidden" | "input":
                    direction = grads[name] + param - context.initial[name]
                case "bias":
                    direction = random.normal(random.stream(context.key, name), param.shape)
                case _:
                    direction = grads[name]
            after[name] = param - self.lr * direction
        return after, state


class Dropping(Network):
    """In training, hidden outputs are multiplied by numbers from 0 to 2 that are drawn from the key."""

    is_random = True

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(torch.Size(input_shape).numel(), 9)
        self.output = nn.Linear(9, num_classes)

    def forward(self, x_BCHW: Tensor, key: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        h = F.relu(self.hidden(x_BCHW.flatten(1)))
        if key is not None:
            h = h * 2 * random.uniform(random.stream(key, "hidden"), h.shape).to(h.dtype)
        return self.output(h), {"hidden": h}


class BatchNormed(nn.Module):
    """A plain module whose running statistics each replica has of its own."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(torch.Size(input_shape).numel(), 9, bias=False)  # the norm removes it
        self.norm = nn.BatchNorm1d(9)
        self.output = nn.Linear(9, num_classes)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = F.relu(self.norm(self.hidden(x_BCHW.flatten(1))))
        return self.output(h), {"hidden": h}


def _of(part: str, kind: type, **arguments: Any) -> Tree:
    return {part: {"_target_": f"{__name__}.{kind.__name__}", **arguments}}


# Parts of a config that put each of them to work.
NODES = {
    "transform_gradients": _of("agent", Noisy, scale=0.1),
    "after_update": _of(
        "agent", Undoing, share=0.5, plus={"_target_": "continual.agents.l2.L2", "l2_weight": 0.1}
    ),
    "start_task": _of("agent", Starting),
    "evaluated": _of("agent", Averaging),
    "penalty": _of("agent", Comparing, strength=0.3),
    "optimizer": _of("optimizer", Pulled, lr=0.05),
    "key": _of("network", Dropping),
    "buffers": _of("network", BatchNormed),
}
