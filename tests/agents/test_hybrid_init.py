import pytest
from torch import Tensor

from continual.agents.hybrid_init import HybridInit
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainHybridInit(PlainLoop):
    def penalty(self) -> Tensor:
        total = 0.0
        for name, param in self.weights():
            distance = param - self.origin(name)
            total = total + self.agent.l2_weight / 2 * (distance**2).sum()
            total = total + self.agent.l1_weight * distance.abs().sum()
        return total


@pytest.mark.parametrize(
    ("network", "optimizer", "sampled"),
    [("mlp", "sgd_without_momentum", True), ("mlp_with_norm", "adam", False)],
)
def test_equals_a_plain_loop(network: str, optimizer: str, sampled: bool) -> None:
    agents = [HybridInit(1e-2, 5e-4, sampled), HybridInit(1e-1, 0.0, sampled)]
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainHybridInit)
