import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from continual import random
from continual.agents.dash import DASH, shrinkage
from continual.learner import Learner
from tests.agents import by_hand
from tests.agents.plain_loop import CLASSES, IMAGE, NETWORKS, OPTIMIZERS, SHAPE, PlainLoop, compare

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


class PlainDASH(PlainLoop):
    """Row by row and kernel by kernel, in Python's numbers."""

    def start_task(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        names = dict(self.weights())
        direction = {name: [0.0] * param.numel() for name, param in names.items()}
        for x, y in batches:
            grads = torch.autograd.grad(F.cross_entropy(self.network(x)[0], y), list(names.values()))
            for name, grad in zip(names, grads, strict=True):
                a = self.agent.dash_alpha
                pairs = zip(direction[name], grad.flatten().tolist(), strict=True)
                direction[name] = [(1 - a) * old - a * new for old, new in pairs]
        self.factors = []
        for name, param in names.items():
            of_one = math.prod(param.shape) if param.ndim == 1 else math.prod(param.shape[param.ndim // 2 :])
            flat = param.detach().view(-1)
            for start in range(0, len(flat), of_one):
                w, g = flat[start : start + of_one].tolist(), direction[name][start : start + of_one]
                length = max(sum(a * a for a in w) ** 0.5, 1e-8)  # PyTorch's, where there is no gradient
                size = length * max(sum(b * b for b in g) ** 0.5, 1e-8)
                cosine = sum(a * b for a, b in zip(w, g, strict=True)) / size
                self.factors.append(min(max(cosine, self.agent.shrink_least), 1.0))
                flat[start : start + of_one] *= self.factors[-1]
        if self.agent.reset_optimizer:
            self.forget()


@pytest.mark.parametrize(
    ("network", "optimizer", "reset"),
    [("mlp_with_norm", "adam", True), ("convnet", "sgd_without_momentum", False)],
)
def test_equals_a_plain_loop(network: str, optimizer: str, reset: bool) -> None:
    agents = [DASH(0.3, 0.05, reset), DASH(0.1, 0.02, reset)]
    loops = compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainDASH, steps_per_task=75)
    for loop in loops:
        least = loop.agent.shrink_least
        assert 0 < sum(least < factor < 1 for factor in loop.factors) < len(loop.factors)


def test_images_that_fill_up_a_partial_batch_do_not_count() -> None:
    learner = Learner.of(NETWORKS["mlp"](), DASH(0.3, 0.05), OPTIMIZERS["sgd"], batch=SHAPE)
    numbers: dict[str, dict[str, Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(0), numbers)
    x, y = torch.randn(8, *IMAGE), torch.arange(8) % CLASSES
    again = torch.arange(8) % 5

    def started(batch: tuple[Tensor, Tensor, Tensor | None]) -> dict[str, Tensor]:
        return learner.start_task(state, numbers, lambda _: batch, 1, random.key(1), torch.tensor(9))[
            "params"
        ]

    full, filled = started((x[:5], y[:5], None)), started((x[again], y[again], torch.arange(8) < 5))
    for name, value in full.items():
        torch.testing.assert_close(filled[name], value)
