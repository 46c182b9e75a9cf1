import pytest
import torch
from torch import Tensor

from continual.agents.selective_weight_reinit import SelectiveWeightReinit
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainSelectiveWeightReinit(PlainLoop):
    """Entry by entry."""

    def transformed(self) -> None:
        names = dict(self.weights())
        self.y = {}
        for name, param in names.items():
            y = param.detach() * (param.grad if self.agent.utility == "gradient" else 1)
            self.y[name] = y.abs().flatten().tolist()

    def after_step(self, features: dict[str, Tensor]) -> None:
        if (self.steps_done + 1) % self.agent.period != 0:
            return
        for name, param in self.weights():
            module, kind = name.rsplit(".")
            y, fresh, flat = self.y[name], self.draw(module)[kind].flatten(), param.view(-1)
            lowest = sorted(range(len(y)), key=lambda i: y[i])
            count = sum(place < self.agent.reinit_rate * len(y) for place in range(len(y)))
            for i in range(len(y)):
                below = y[i] <= self.agent.reinit_rate * sum(y) / len(y)
                if i in lowest[:count] if self.agent.prune == "lowest" else below:
                    flat[i] = fresh[i]


@pytest.mark.parametrize(("utility", "prune"), [("gradient", "threshold"), ("magnitude", "lowest")])
@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
def test_equals_a_plain_loop(network: str, utility: str, prune: str) -> None:
    agents = [SelectiveWeightReinit(rate, period, utility, prune) for rate, period in ((0.1, 5), (0.3, 7))]
    compare(NETWORKS[network](), agents, OPTIMIZERS["sgd"], PlainSelectiveWeightReinit, steps=30)


def test_nothing_is_drawn_anew_at_a_rate_of_0() -> None:
    dead = torch.zeros(4)
    for prune in ("threshold", "lowest"):
        assert not SelectiveWeightReinit(0.0, prune=prune).pruned(dead).any()
