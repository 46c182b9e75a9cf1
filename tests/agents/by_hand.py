"""What an agent is shown of a network that is nothing but named tensors, for checks by hand."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Anatomy, Batch, BatchShape, Context, Step, TaskStart, Update, Weights
from continual.networks.initialization import Distribution
from continual.networks.network import HiddenLayer
from continual.optimizers.optimizer import Role
from continual.optimizers.sgd import Slots

NOTHING = torch.zeros(0)


def context(
    weights: Mapping[str, Tensor],
    roles: Mapping[str, Role] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    hidden_layers: tuple[HiddenLayer, ...] = (),
) -> Context:
    """By default matrices are hidden ones, vectors biases, and the initial weights these."""
    default: dict[str, Role] = {name: "hidden" if w.ndim > 1 else "bias" for name, w in weights.items()}
    distributions = {name: Distribution(w.shape, "uniform", 0.5) for name, w in weights.items()}
    roles = {**default, **(roles or {})}
    covered = tuple(name for name in weights if roles[name] != "norm")
    anatomy = Anatomy(covered, hidden_layers, distributions, roles, BatchShape())
    first = initial or weights
    return Context(anatomy, {n: first[n] for n in covered}, torch.tensor(0), random.key(0))


def batch(features: Weights | None = None) -> Batch:
    return Batch(NOTHING, NOTHING, NOTHING, features or {}, lambda params, x: (NOTHING, {}))


def step(before: Weights, gradients: Weights, features: Weights | None = None) -> Step:
    return Step(batch(features), before, gradients, lambda: gradients, lambda: NOTHING)


def update(params: Weights, state: object = None) -> Update:
    return Update(dict(params), Slots({}, {}), state)


def start(gradients: list[Weights]) -> TaskStart:
    fresh: Callable[[Weights], Slots] = lambda params: Slots({}, {})  # noqa: E731
    return TaskStart(len(gradients), lambda number: gradients[number], fresh)


def gradient(penalty: Callable[[Weights], Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a penalty, by weight."""
    own = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    grads = torch.autograd.grad(penalty(own), list(own.values()), allow_unused=True)
    return {n: torch.zeros_like(own[n]) if g is None else g for n, g in zip(own, grads, strict=True)}


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-5, atol=1e-7)
