import pytest
import torch
from torch import Tensor

from continual.agents.huber_init import HuberInit
from continual.tree import Tree
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainHuberInit(PlainLoop):
    def penalty(self) -> Tensor:
        total = 0.0
        for name, param in self.weights():
            distance = (param - self.origin(name)).abs()
            far = distance > 1
            total = total + (distance[~far] ** 2 / 2).sum() + (distance[far] - 1 / 2).sum()
        return self.agent.huber_weight * total


def far_away(state: Tree) -> None:
    """Some weights begin more than 1 from theta_0."""
    bias = state["params"]["output.bias"]
    bias += torch.linspace(-3, 3, bias.shape[1])


@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "sgd"), ("mlp_with_norm", "adam")])
def test_equals_a_plain_loop(network: str, optimizer: str) -> None:
    agents = [HuberInit(1e-2), HuberInit(1e-1)]
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainHuberInit, begin=far_away)
