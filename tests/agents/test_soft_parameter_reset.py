import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from continual import random
from continual.agents.agent import Anatomy, BatchShape, Context, Update
from continual.agents.l2 import L2
from continual.agents.soft_parameter_reset import SoftParameterReset
from continual.networks.initialization import Distribution
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare, seen


class PlainSoftParameterReset(PlainLoop):
    """d loss / d gamma by the chain rule, from the gradient of the weights."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.gammas: list[float] = []

    def before_step(self, x: Tensor, y: Tensor) -> None:
        agent = self.agent
        sigma_0 = {name: 1 / math.sqrt(3 * self._fan_in(name)) for name, _ in self.weights()}
        noise = {n: random.normal(random.stream(self.key, n), p.shape) for n, p in self.weights()}
        theta = {name: param.detach().clone() for name, param in self.weights()}
        origin = {
            n: self.initial[n] if agent.prior == "initial" else torch.zeros_like(p) for n, p in theta.items()
        }
        self.gamma = {name.rpartition(".")[0]: 1.0 for name in theta}
        for _ in range(agent.drift_steps):
            for name, param in self.weights():
                g = self.gamma[name.rpartition(".")[0]]
                sigma = sigma_0[name] * math.sqrt(g**2 * agent.s**2 + (1 - g**2))
                param.data = g * theta[name] + (1 - g) * origin[name] + sigma * noise[name]
            self.network.zero_grad()
            F.cross_entropy(self.network(x)[0], y).backward()
            slope = dict.fromkeys(self.gamma, 0.0)
            for name, param in self.weights():
                layer = name.rpartition(".")[0]
                g = self.gamma[layer]
                of_sigma = sigma_0[name] * g * (agent.s**2 - 1) / math.sqrt(g**2 * agent.s**2 + (1 - g**2))
                slope[layer] += float(
                    (param.grad * (theta[name] - origin[name] + of_sigma * noise[name])).sum()
                )
            for layer, value in slope.items():
                self.gamma[layer] = min(1.0, max(0.0, self.gamma[layer] - agent.drift_rate * value))
        for name, param in self.weights():
            g = self.gamma[name.rpartition(".")[0]]
            param.data = g * theta[name] + (1 - g) * origin[name]
        self.before = {name: param.detach().clone() for name, param in self.weights()}
        self.gammas += self.gamma.values()

    def penalty(self) -> Tensor | float:
        plus = 0.0 if self.agent.plus is None else self.agent.plus.l2_weight / 2
        return plus * sum((param**2).sum() for _, param in self.weights())

    def after_step(self, features: dict[str, Tensor]) -> None:
        for name, param in self.weights():
            g = self.gamma[name.rpartition(".")[0]]
            factor = g**2 + (1 - g**2) / self.agent.s**2
            param.copy_(self.before[name] + factor * (param - self.before[name]))

    def _fan_in(self, name: str) -> int:
        return self.network.get_submodule(name.rpartition(".")[0]).weight[0].numel()


@pytest.mark.parametrize(
    ("network", "optimizer", "prior", "steps"),
    [
        ("mlp_with_norm", "sgd", "zero", 2),
        ("mlp", "adam", "initial", 1),
        ("convnet", "sgd_without_momentum", "zero", 1),
    ],
)
def test_equals_a_plain_loop(network: str, optimizer: str, prior: str, steps: int) -> None:
    plus = L2(0.01) if network == "convnet" else None
    agents = [SoftParameterReset(rate, steps, s, prior, plus=plus) for rate, s in ((0.2, 0.9), (0.1, 0.5))]
    for loop in compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainSoftParameterReset):
        assert min(loop.gammas) < 0.99
        assert max(loop.gammas) == 1.0


def test_one_weight() -> None:
    """L = (theta + 1)^2 / 2 at theta = 1, with mu_0 = 0, s = .9, sigma_0 = .5 and a draw of .3."""
    agent = SoftParameterReset(drift_rate=0.1, s=0.9)
    key = next(key for key in map(random.key, range(10_000)) if abs(_draw(key) - 0.3) < 1e-3)
    sigma_0 = 0.5 * 0.3 / _draw(key)  # so that sigma_0 eps is what it is with a draw of .3
    shape = torch.Size((1,))
    anatomy = Anatomy(
        ("one.weight",), (), {"one.weight": Distribution(shape, "normal", sigma_0)}, {}, BatchShape()
    )
    context = Context(anatomy, {"one.weight": torch.ones(1)}, torch.zeros(()), key)
    params, gamma = agent.before_step(
        {"one.weight": torch.ones(1)},
        agent.init(context),
        lambda at: ((at["one.weight"] + 1) ** 2 / 2).sum(),
        context,
    )
    assert gamma["one"].item() == pytest.approx(0.7932608, abs=1e-6)
    assert params["one.weight"].item() == pytest.approx(0.7932608, abs=1e-6)
    stepped = {"one.weight": params["one.weight"] - 1}
    after = agent.after_update(Update(stepped, None, gamma), seen({})._replace(before=params), context)
    assert (params["one.weight"] - after.params["one.weight"]).item() == pytest.approx(1.0869631, abs=1e-6)


def _draw(key: Tensor) -> float:
    return random.normal(random.stream(key, "one.weight"), (1,)).item()
