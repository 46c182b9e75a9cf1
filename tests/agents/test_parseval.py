import torch
from torch import Tensor

from continual.agents.parseval import Parseval
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare

WEIGHTS = {"l.weight": torch.tensor([[1.0, 1], [0, 2]]), "o.weight": torch.randn(3, 2)}


def test_by_hand() -> None:
    agent, context = Parseval(1.0, 2.0, False), by_hand.context(WEIGHTS, roles={"o.weight": "output"})

    def penalty(weights: dict[str, Tensor]) -> Tensor:
        return agent.penalty(weights, {}, context, by_hand.batch())

    by_hand.close(penalty(WEIGHTS), 12.0)
    by_hand.close(by_hand.gradient(penalty, WEIGHTS)["l.weight"], [[0, 16], [8, 24]])


class PlainParseval(PlainLoop):
    """Unit by unit."""

    def penalty(self) -> Tensor:
        total = torch.zeros(())
        for layer in self.network.hidden_layers:
            rows = [row.flatten() for row in self.network.get_submodule(layer.incoming).weight]
            for i, one in enumerate(rows):
                for j, other in enumerate(rows):
                    wanted = self.agent.scale if i == j else 0.0
                    total = total + (64 / layer.units) ** 2 * (one @ other - wanted) ** 2
        return self.agent.parseval_weight * total


def test_equals_a_plain_loop() -> None:
    for network in ("mlp_with_norm", "convnet"):
        agents = [Parseval(1e-4), Parseval(1e-3, 1.0)]
        compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainParseval)
