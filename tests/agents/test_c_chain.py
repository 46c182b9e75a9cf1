import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from continual.agents.c_chain import CChain
from continual.agents.l2 import L2
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.mlp import MLP
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, SHAPE, PlainLoop, compare


class PlainCChain(PlainLoop):
    """With a second network for the weights before the last update, and lists of all that was."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.batches: list[Tensor] = []
        self.losses: list[float] = []
        self.churns: list[float] = []
        self.strengths: list[float] = []

    def step(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, before = x, y, copy.deepcopy(self.network)
        super().step(x, y)
        self.before = before
        self.batches.append(x)

    def penalty(self) -> Tensor:
        window, every = self.agent.window, self.agent.every
        strength = self.agent.first_weight
        if self.steps_done >= self.agent.warmup * every:
            losses, churns = (of[every - 1 :: every][-window:] for of in (self.losses, self.churns))
            mean_churn = sum(churns) / len(churns)
            strength = self.agent.relative_weight * sum(map(abs, losses)) / len(losses) / (mean_churn + 1e-8)
        # The last update was made on the last batch: what it changed is looked at on the one before.
        churn = self.churn(self.before, self.batches[-2]) if len(self.batches) > 1 else torch.zeros(())
        self.losses.append(float(F.cross_entropy(self.network(self.x)[0].detach(), self.y)))
        self.churns.append(float(churn.detach()))
        self.strengths.append(strength)
        plus = 0.0 if self.agent.plus is None else self.agent.plus.l2_weight / 2
        return strength * churn + plus * sum((param**2).sum() for _, param in self.weights())

    def churn(self, before: torch.nn.Module, x: Tensor) -> Tensor:
        now, then = self.network(x)[0], before(x)[0].detach()
        if self.agent.distance == "mse":
            return F.mse_loss(now, then)
        rows = zip(now, then, strict=True)
        return sum(F.kl_div(a.log_softmax(0), b.softmax(0), reduction="sum") for a, b in rows) / len(now)


@pytest.mark.parametrize("distance", ["mse", "kl"])
@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
def test_equals_a_plain_loop(network: str, distance: str) -> None:
    # Larger ones follow the churn so closely that rounding grows from step to step.
    weights = (1.5e-3, 1e-3) if distance == "mse" else (5e-4, 3e-4)
    plus = L2(0.01) if distance == "kl" else None  # a second penalty has its own findings
    agents = [
        CChain(w, 0.3, warmup, 10, every, distance, plus=plus)
        for w, (warmup, every) in zip(weights, ((20, 1), (30, 2)), strict=True)
    ]
    for loop in compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainCChain):
        own = loop.strengths[loop.agent.warmup * loop.agent.every :]
        assert max(own) > 2 * min(own) > 0
        assert loop.churns[:2] == [0, 0]
        assert min(loop.churns[2:]) > 0


def test_one_output_has_no_probabilities() -> None:
    shape = SHAPE._replace(logits_BK=(6, 1))
    network = MLP((1, 1, 3), 1, hidden_sizes=[4])
    Learner.of(network, CChain(), OPTIMIZERS["sgd"], batch=shape)
    with pytest.raises(ConfigError, match=r"agent\.distance: kl compares probabilities"):
        Learner.of(network, CChain(distance="kl"), OPTIMIZERS["sgd"], batch=shape)
