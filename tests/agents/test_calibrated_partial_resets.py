import math

import pytest
import torch
from torch import Tensor

from continual.agents.calibrated_partial_resets import CalibratedPartialResets, relative_size
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("cpr", [1, 1, 0.33596323]), ("ccbp", [0.83201838, 0.5, 0.16798161]), ("exp", [1, 1, math.exp(-1.6)])],
)
def test_the_transforms_by_hand(transform: str, expected: list[float]) -> None:
    agent = CalibratedPartialResets(transform=transform)
    by_hand.close(agent.calibrated(torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)), expected)


def test_a_step_by_hand() -> None:
    s = relative_size(torch.tensor([[0.2, -0.4], [0, 0.1], [1, 1]], dtype=torch.float64))
    by_hand.close(s, [0.66666665, 0.11111111, 2.2222222])
    u = 0.99 * 1 + 0.01 * s
    by_hand.close(u, [0.99666667, 0.99111111, 1.01222222])
    by_hand.close(0.015 * CalibratedPartialResets().calibrated(u), [0.015, 0.015, 0.01353799])


class PlainCalibratedPartialResets(PlainLoop):
    """Unit by unit."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.utility = {layer.name: [1.0] * layer.units for layer in self.network.hidden_layers}

    def transformed(self) -> None:
        d = self.agent.utility_decay
        for layer in self.network.hidden_layers:
            grad = self.network.get_submodule(layer.incoming).weight.grad
            sizes = [grad[unit].abs().mean().item() for unit in range(layer.units)]
            mean = sum(sizes) / len(sizes) + 1e-8
            old = self.utility[layer.name]
            self.utility[layer.name] = [d * u + (1 - d) * s / mean for u, s in zip(old, sizes, strict=True)]

    def after_step(self, features: dict[str, Tensor]) -> None:
        if (self.steps_done + 1) % self.agent.period != 0:
            return
        for layer in self.network.hidden_layers:
            incoming = self.network.get_submodule(layer.incoming).weight
            outgoing = self.network.get_submodule(layer.outgoing).weight
            fresh = self.draw(layer.incoming)["weight"]
            for unit, u in enumerate(self.utility[layer.name]):
                t = min(1.0, 2 / (1 + math.exp(self.agent.kappa * (u - self.agent.threshold))))
                r = self.agent.reset_rate * t
                incoming[unit] = (1 - r) * incoming[unit] + r * fresh[unit]
                outgoing[:, unit * layer.spread : (unit + 1) * layer.spread] *= 1 - r
            self.utility[layer.name] = [1.0] * layer.units


@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
def test_equals_a_plain_loop(network: str) -> None:
    agents = [CalibratedPartialResets(0.2, 5, 0.5, 4.0), CalibratedPartialResets(0.5, 3, 0.9, 1.0, 0.8)]
    compare(NETWORKS[network](), agents, OPTIMIZERS["adam"], PlainCalibratedPartialResets)
