import pytest
import torch
from torch import Tensor

from continual.agents.upgd import UPGD
from continual.agents.weight_clipping import WeightClipping
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainWeightClipping(PlainLoop):
    """Entry by entry."""

    def after_step(self, features: dict[str, Tensor]) -> None:
        for module in [*(layer.incoming for layer in self.network.hidden_layers), "output"]:
            if module == "output" and not self.agent.clip_output:
                continue
            owner = self.network.get_submodule(module)
            bound = self.agent.kappa / owner.weight[0].numel() ** 0.5
            for param in owner.parameters():
                flat = param.view(-1)
                flat.copy_(torch.tensor([min(max(value, -bound), bound) for value in flat.tolist()]))


@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
@pytest.mark.parametrize("clip_output", [True, False])
def test_equals_a_plain_loop(network: str, clip_output: bool) -> None:
    agents = [WeightClipping(kappa, clip_output) for kappa in (0.9, 1.1)]
    compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainWeightClipping)


def test_stands_beside_upgd() -> None:
    assert WeightClipping(plus=UPGD()).plus == UPGD()
