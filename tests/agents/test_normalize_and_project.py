import pytest
import torch
from torch import Tensor

from continual.agents.normalize_and_project import NormalizeAndProject
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.network import HiddenLayer
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


def test_by_hand() -> None:
    layer = HiddenLayer("l", "l", "o", units=2, norm="n")
    weights = {
        "l.weight": torch.tensor([[3.0, 4], [0, 12]]),
        "n.weight": torch.tensor([2.0, 1]),
        "n.bias": torch.tensor([1.0, 0]),
    }
    context = by_hand.context(weights, roles={"n.weight": "norm", "n.bias": "norm"}, hidden_layers=(layer,))
    update = by_hand.update(weights, {"l": torch.tensor(2.0)})
    after = NormalizeAndProject().after_update(update, by_hand.step({}, {}), context).params
    by_hand.close(after["l.weight"], [[0.46153846, 0.61538462], [0, 1.84615385]])
    by_hand.close(after["n.weight"], [1.15470054, 0.57735027])
    by_hand.close(after["n.bias"], [0.57735027, 0])


class PlainNormalizeAndProject(PlainLoop):
    def after_step(self, features: dict[str, Tensor]) -> None:
        for layer in self.network.hidden_layers:
            module = self.network.get_submodule(layer.incoming)
            factor = self.initial[f"{layer.incoming}.weight"].norm().item() / module.weight.norm().item()
            module.weight.mul_(factor)
            module.bias.mul_(factor)
            if self.agent.project_norms:
                own = self.network.get_submodule(layer.norm)
                joint = torch.cat([own.weight, own.bias]).norm().item()
                own.weight.mul_(layer.units**0.5 / joint)
                own.bias.mul_(layer.units**0.5 / joint)


@pytest.mark.parametrize("project_norms", [True, False])
def test_equals_a_plain_loop(project_norms: bool) -> None:
    agents = [NormalizeAndProject(project_norms)]
    compare(NETWORKS["mlp_with_norm"](), agents, OPTIMIZERS["adam"], PlainNormalizeAndProject)


def test_needs_norms() -> None:
    with pytest.raises(ConfigError, match=r"normalize_and_project needs a norm.*layer_norm=true"):
        Learner.of(NETWORKS["mlp"](), NormalizeAndProject(), OPTIMIZERS["sgd"])
