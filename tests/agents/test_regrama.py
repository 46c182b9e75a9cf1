import pytest
import torch
from torch import Tensor

from continual.agents.l2 import L2
from continual.agents.regrama import ReGraMa
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainReGraMa(PlainLoop):
    """Unit by unit, from the first layer to the last."""

    def penalty(self) -> Tensor | float:
        return 0.05 * sum((p**2).sum() for _, p in self.weights()) if self.agent.plus else 0.0

    def transformed(self) -> None:
        self.sizes = {}
        for layer in self.network.hidden_layers:
            weight = self.network.get_submodule(layer.incoming).weight
            grad = weight.grad - (0.1 * weight.detach() if self.agent.plus else 0.0)
            self.sizes[layer.name] = [grad[unit].abs().mean().item() for unit in range(layer.units)]

    def after_step(self, features: dict[str, Tensor]) -> None:
        if (self.steps_done + 1) % self.agent.recycle_period != 0:
            return
        for layer in self.network.hidden_layers:
            sizes = self.sizes[layer.name]
            for unit, size in enumerate(sizes):
                if size <= self.agent.recycle_threshold * sum(sizes) / len(sizes):
                    self.replace(layer, unit, self.draw(layer.incoming)["weight"][unit], 0.0)


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [("mlp", "adam"), ("mlp_with_norm", "sgd_without_momentum"), ("convnet", "sgd_without_momentum")],
)
@pytest.mark.parametrize("plus", [None, L2(0.1)])
def test_equals_a_plain_loop(network: str, optimizer: str, plus: L2 | None) -> None:
    agents = [ReGraMa(10, 0.4, plus=plus), ReGraMa(7, 0.7, plus=plus)]
    loops = compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainReGraMa)
    assert len(loops[1].replaced) >= 5
    assert torch.isfinite(next(loops[0].network.parameters())).all()
