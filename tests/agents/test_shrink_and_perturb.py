import pytest
import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Context, Update
from continual.agents.shrink_and_perturb import ShrinkAndPerturb
from continual.learner import Learner
from continual.optimizers.sgd import Slots
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare, seen


class PlainShrinkAndPerturb(PlainLoop):
    def after_step(self, features: dict[str, Tensor]) -> None:
        for module in [*(layer.incoming for layer in self.network.hidden_layers), "output"]:
            for name, noise in self.draw(module).items():
                param = self.network.get_parameter(f"{module}.{name}")
                param.mul_(1 - self.agent.shrink).add_(self.agent.perturb_scale * noise)


@pytest.mark.parametrize(("network", "optimizer"), [("mlp_with_norm", "adam"), ("convnet", "sgd")])
def test_equals_a_plain_loop(network: str, optimizer: str) -> None:
    agents = [ShrinkAndPerturb(1e-3, 1e-2), ShrinkAndPerturb(0.02, 0.1)]
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainShrinkAndPerturb)


def test_leaves_norms_and_the_optimiser_alone() -> None:
    network = NETWORKS["mlp_with_norm"]()
    agent = ShrinkAndPerturb(shrink=1.0, perturb_scale=0.0)
    anatomy = Learner.of(network, agent, OPTIMIZERS["sgd"]).anatomy
    params = {name: param.detach() for name, param in network.named_parameters()}
    state = Slots({"momentum": {name: torch.ones_like(param) for name, param in params.items()}}, {})
    context = Context(anatomy, params, torch.tensor(0), random.key(0))
    after = agent.after_update(Update(params, state, {}), seen({}), context)
    assert after.optimizer is state
    for name, param in after.params.items():
        assert (param is params[name]) if "norm" in name else not param.any(), name
