import pytest
import torch
from torch import Tensor

from continual import random
from continual.agents.selective_weight_reinit import SelectiveWeightReinit
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainSelectiveWeightReinit(PlainLoop):
    """Entry by entry."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.u = {name: [0.0] * param.numel() for name, param in self.weights()}
        self.drawn = 0

    def transformed(self) -> None:
        decay = self.agent.utility_decay
        for name, param in self.weights():
            y = param.detach() * (param.grad if self.agent.utility == "gradient" else 1)
            for i, now in enumerate(y.abs().flatten().tolist()):
                self.u[name][i] = decay * self.u[name][i] + (1 - decay) * now

    def after_step(self, features: dict[str, Tensor]) -> None:
        if (self.steps_done + 1) % self.agent.period != 0:
            return
        for name, param in self.weights():
            module, kind = name.rsplit(".")
            u, fresh, flat = self.u[name], self.draw(module)[kind].flatten(), param.view(-1)
            below = [i for i in range(len(u)) if u[i] <= self.agent.reinit_rate * sum(u) / len(u)]
            if self.agent.prune == "lowest":
                chance = random.uniform(random.stream(self.key, f"{name}/count"), (1,)).item()
                count, rest = divmod(self.agent.reinit_rate * len(u), 1)
                count = int(count) + (chance < rest)
                below = sorted(range(len(u)), key=lambda i: u[i])[:count]
            for i in below:
                flat[i] = fresh[i]
            if below:
                self.u[name] = [0.0] * len(u)
            self.drawn += len(below)


@pytest.mark.parametrize(
    ("utility", "prune", "decay"),
    [("gradient", "threshold", 0.0), ("gradient", "threshold", 0.8), ("magnitude", "lowest", 0.5)],
)
@pytest.mark.parametrize("network", ["mlp_with_norm", "convnet"])
def test_equals_a_plain_loop(network: str, utility: str, prune: str, decay: float) -> None:
    agents = [
        SelectiveWeightReinit(rate, period, utility, prune, decay) for rate, period in ((0.1, 20), (0.3, 30))
    ]
    for loop in compare(NETWORKS[network](), agents, OPTIMIZERS["sgd"], PlainSelectiveWeightReinit):
        assert loop.drawn > 100


def test_nothing_is_drawn_anew_at_a_rate_of_0() -> None:
    dead = torch.zeros(4)
    for prune in ("threshold", "lowest"):
        assert not SelectiveWeightReinit(0.0, prune=prune).pruned(dead, torch.zeros(())).any()
