import math

import pytest
import torch
from torch import Tensor

from continual.agents.l2_er import L2ER, effective_rank
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


def test_by_hand() -> None:
    h = torch.diag(torch.tensor([3.0, 1])).requires_grad_()
    rank = effective_rank(h)
    by_hand.close(rank.detach(), 1.75476535)
    (gradient,) = torch.autograd.grad(rank, h)
    by_hand.close(gradient.diagonal(), [-0.12048792, 0.36146377])


def test_a_dead_layer_has_no_gradient_and_stops_no_other() -> None:
    h = torch.zeros(4, 3, requires_grad=True)
    rank = effective_rank(h)
    (gradient,) = torch.autograd.grad(rank, h)
    assert rank == 0
    assert not gradient.any()
    low = torch.zeros(4, 3)
    low[:, 0] = 1.0
    low.requires_grad_()
    (gradient,) = torch.autograd.grad(effective_rank(low), low)
    assert gradient.isfinite().all()


def test_the_penalty_is_of_weights_and_of_features() -> None:
    weights = {"l.weight": torch.randn(3, 2), "l.bias": torch.randn(3)}
    maps, units = torch.randn(6, 4, 3, 3).abs(), torch.randn(6, 5).abs()
    agent, context = L2ER(0.1, 0.3), by_hand.context(weights)
    found = agent.penalty(weights, {}, context, by_hand.batch({"conv": maps, "hidden": units}))

    def rank(matrix: Tensor) -> float:
        values = torch.linalg.svdvals(matrix).tolist()
        return math.exp(-sum(v / sum(values) * math.log(v / sum(values)) for v in values))

    squares = sum(float((w**2).sum()) for w in weights.values())
    expected = 0.1 * squares - 0.3 * (rank(maps.mean((2, 3))) + rank(units)) / 2
    by_hand.close(found, expected)


class PlainL2ER(PlainLoop):
    """The gradient of the rank by its formula, one singular value after another, in float64."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.seen: list[Tensor] = []
        self.ranks: list[float] = []

    def step(self, x: Tensor, y: Tensor) -> None:
        self.seen.append(x)
        super().step(x, y)

    def penalty(self) -> Tensor:
        penalty = self.agent.l2_weight * sum((param**2).sum() for _, param in self.weights())
        _, features = self.network(torch.cat(self.seen[-self.agent.window :]))
        for h in features.values():
            matrix = h if h.ndim == 2 else h.mean((2, 3))
            rank, slope = self.rank_and_slope(matrix.detach().double())
            self.ranks.append(rank)
            penalty = penalty - self.agent.rank_weight / len(features) * (matrix * slope.float()).sum()
        return penalty

    def rank_and_slope(self, matrix: Tensor) -> tuple[float, Tensor]:
        """erank and its derivative by the matrix: each u_j v_j^T times -erank (ln p_j + E) / sum of sigma."""
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
        total = float(values.sum())
        alive = [j for j in range(len(values)) if total > 0 and values[j] / total > 1e-6]
        entropy = -sum(float(values[j] / total) * math.log(values[j] / total) for j in alive)
        slope = torch.zeros_like(matrix)
        for j in alive:
            by_value = -math.exp(entropy) * (math.log(values[j] / total) + entropy) / total
            slope += by_value * u[:, j, None] * v[j]
        return math.exp(entropy), slope


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
def test_equals_a_plain_loop(network: str, window: int) -> None:
    weights = (0.003, 0.001) if network == "convnet" else (0.01, 0.003)
    agents = [L2ER(1e-3, weight, window) for weight in weights]
    loops = compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainL2ER)
    for loop in loops:
        assert max(loop.ranks) > 1.2 * min(loop.ranks) > 0
