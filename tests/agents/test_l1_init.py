import pytest
from torch import Tensor

from continual.agents.l1_init import L1Init
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainL1Init(PlainLoop):
    def penalty(self) -> Tensor:
        return self.agent.l1_weight * sum(
            (param - self.origin(name)).abs().sum() for name, param in self.weights()
        )


# Rounding decides the sign of a distance near 0, and with it a whole step of the penalty: it must be small.
@pytest.mark.parametrize(
    ("network", "optimizer", "sampled"),
    [("convnet", "adam", False), ("mlp_with_norm", "sgd_without_momentum", True)],
)
def test_equals_a_plain_loop(network: str, optimizer: str, sampled: bool) -> None:
    agents = [L1Init(5e-4, sampled), L1Init(2e-4, sampled)]
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainL1Init)
