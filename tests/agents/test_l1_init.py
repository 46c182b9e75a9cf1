import pytest
from torch import Tensor

from continual.agents.l1_init import L1Init
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainL1Init(PlainLoop):
    def penalty(self) -> Tensor:
        return self.agent.l1_weight * sum(
            (param - self.origin(name)).abs().sum() for name, param in self.weights()
        )


@pytest.mark.parametrize(
    ("network", "optimizer", "sampled"),
    [("mlp", "adam", False), ("mlp_with_norm", "sgd", True), ("convnet", "sgd", False)],
)
def test_equals_a_plain_loop(network: str, optimizer: str, sampled: bool) -> None:
    agents = [L1Init(1e-3, sampled), L1Init(1e-4, sampled)]
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainL1Init)
