import math

import pytest
import torch
from torch import Tensor

from continual.agents.self_normalized_resets import Ages, SelfNormalizedResets
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


def ages(threshold: float, history: Tensor) -> Ages:
    return Ages(torch.zeros(1, dtype=torch.int32), torch.tensor([threshold]), history[None])


@pytest.mark.parametrize(("percentile", "tau", "expected"), [(0.9, 100, 32), (0.95, 100, 64), (0.9, 20, 40)])
def test_a_histograms_threshold_by_hand(percentile: float, tau: float, expected: float) -> None:
    history = torch.zeros(201)
    history[[0, 16, 32, 64]] = torch.tensor([99.0, 6, 3, 1])
    agent = SelfNormalizedResets(percentile, estimator="histogram", longest_age=200)
    assert agent.next_threshold(ages(tau, history)).tolist() == [expected]


@pytest.mark.parametrize(("tau", "expected"), [(100, 5), (4, 8)])
def test_an_exponential_threshold_by_hand(tau: float, expected: float) -> None:
    agent = SelfNormalizedResets(0.9)
    assert agent.next_threshold(ages(tau, torch.tensor([21.0, 11]))).tolist() == [expected]


def test_a_trace_by_hand() -> None:
    """In steps: a threshold of 3, and units that fire at steps 1, 2 and 5."""
    agent = SelfNormalizedResets(estimator="histogram", longest_age=5)
    state, replaced = ages(3.0, torch.zeros(6)), []
    for step, fired in enumerate([1, 1, 0, 0, 1, 0, 0, 0], start=1):
        chosen, state = agent.observed(state, torch.tensor([bool(fired)]))
        replaced += [step] * int(chosen)
    assert replaced == [8]
    assert state.history.tolist() == [[2, 0, 1, 1, 0, 0]]


class PlainSelfNormalizedResets(PlainLoop):
    """Unit by unit, with a list of ages."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        layers = self.network.hidden_layers
        self.age = {layer.name: [0] * layer.units for layer in layers}
        self.tau = {layer.name: [float(self.agent.first_threshold)] * layer.units for layer in layers}
        self.history: dict[tuple[str, int], list[int]] = {}

    def after_step(self, features: dict[str, Tensor]) -> None:
        is_exponential = self.agent.estimator == "exponential"
        for layer in self.network.hidden_layers:
            name = layer.name
            for unit in range(layer.units):
                past = self.history.setdefault((name, unit), [])
                if bool((features[name][:, unit] > 0).any()):
                    past.append(self.age[name][unit] + is_exponential)
                    self.age[name][unit] = 0
                else:
                    self.age[name][unit] += 1
                if self.age[name][unit] >= self.tau[name][unit]:
                    past.append(self.age[name][unit])
                    self.age[name][unit] = 0
                    self.replace(layer, unit, self.draw(layer.incoming)["weight"][unit], 0.0)
                if (self.steps_done + 1) % self.agent.threshold_period == 0:
                    self.tau[name][unit] = self.next(self.tau[name][unit], past)
                    past.clear()

    def next(self, tau: float, past: list[int]) -> float:
        p = self.agent.percentile
        if self.agent.estimator == "exponential":
            q = -math.log(1 - p) * (1 + sum(past)) / (1 + len(past))
            return math.ceil(q) if q < tau else math.ceil(2 * tau)
        past = sorted(min(age, self.agent.longest_age) for age in past if age > 0)
        counted = [age for i, age in enumerate(past) if i + 1 >= p * len(past)]
        q = max(1, counted[0]) if counted else 1
        return min(max(q if q < tau else 2 * tau, 1), self.agent.longest_age)


def same_thresholds(state, loops) -> None:
    for r, loop in enumerate(loops):
        assert {name: of.threshold[r].tolist() for name, of in state["agent"].items()} == loop.tau


@pytest.mark.parametrize("estimator", ["exponential", "histogram"])
@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "adam"), ("convnet", "sgd_without_momentum")])
def test_equals_a_plain_loop(network: str, optimizer: str, estimator: str) -> None:
    agents = [
        SelfNormalizedResets(0.63, 13, 3, estimator, longest_age=20),
        SelfNormalizedResets(0.89, 7, 2, estimator, longest_age=20),
    ]
    loops = compare(
        NETWORKS[network](),
        agents,
        OPTIMIZERS[optimizer],
        PlainSelfNormalizedResets,
        check=same_thresholds,
    )
    assert all(loop.replaced for loop in loops)
