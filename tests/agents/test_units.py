import pytest
from torch import Tensor, nn

from continual.agents.agent import Agent
from continual.agents.base import Base
from continual.agents.continual_backprop import ContinualBackprop
from continual.agents.redo import ReDo
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.convnet import ConvNet
from continual.networks.mlp import MLP
from tests.agents.plain_loop import CLASSES, IMAGE, OPTIMIZERS

REPLACING = {"redo": ReDo(), "continual_backprop": ContinualBackprop()}


class Plain(nn.Module):
    """Tells nothing of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(144, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.only(x.flatten(1)), {}


NETWORKS = {
    "crelu mlp": (
        MLP(IMAGE, CLASSES, hidden_sizes=[8, 8], activation="crelu"),
        "'hidden0'.*2 outputs each.*network.activation",
    ),
    "crelu convnet": (
        ConvNet(IMAGE, CLASSES, kernel_sizes=[3], channels=[4], hidden_sizes=[5], activation="crelu"),
        "'conv0'.*2 outputs each.*network.activation",
    ),
    "plain module": (Plain(), "needs a network that tells its hidden layers.*Network"),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("agent", REPLACING)
def test_refuses_networks_whose_units_cannot_be_replaced(agent: str, network: str) -> None:
    module, reason = NETWORKS[network]
    with pytest.raises(ConfigError, match=f"^agent: {agent} .*{reason}"):
        Learner.of(module, REPLACING[agent], OPTIMIZERS["sgd"])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("agent", [Base(), Agent()])
def test_other_agents_take_any_network(agent: Agent, network: str) -> None:
    Learner.of(NETWORKS[network][0], agent, OPTIMIZERS["sgd"])
