import torch

from continual.agents.dash import DASH, shrinkage
from tests.agents import by_hand

WEIGHTS = {
    "l.weight": torch.tensor([[3.0, 4], [1, 0], [0, 2]]),
    "l.bias": torch.tensor([0.5, -0.5, 1]),
}
BATCHES = [
    {"l.weight": torch.tensor([[-1.0, -2], [1, 1], [0, -1]]), "l.bias": torch.tensor([-1.0, 1, 0])},
    {"l.weight": torch.tensor([[-3.0, 0], [2, -1], [1, 1]]), "l.bias": torch.tensor([0.0, 0, -2])},
]


def test_by_hand() -> None:
    agent, context = DASH(0.3, 0.05), by_hand.context(WEIGHTS)
    after = agent.start_task(by_hand.update(WEIGHTS), by_hand.start(BATCHES), context).params
    by_hand.close(after["l.weight"], [[2.5328563, 3.37714173], [0.05, 0], [0, 0.1]])
    by_hand.close(after["l.bias"], [0.49393917, -0.49393917, 0.98787834])


def test_kernels_are_shrunk_one_by_one() -> None:
    weight, direction = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    found = shrinkage(direction, weight)
    assert found.shape == (2, 3, 1, 1)
    for o in range(2):
        for i in range(3):
            g, w = direction[o, i].flatten(), weight[o, i].flatten()
            by_hand.close(found[o, i, 0, 0], float(g @ w / g.norm() / w.norm()))
    assert not shrinkage(torch.zeros(4, 3), torch.randn(4, 3)).any(), "no gradient shrinks to the least"
