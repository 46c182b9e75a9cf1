import math

import torch
from torch import Tensor

from continual.agents.l2_er import L2ER, effective_rank
from tests.agents import by_hand


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
