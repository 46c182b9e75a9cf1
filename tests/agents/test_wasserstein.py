import pytest
import torch
from torch import Tensor

from continual.agents.l2_init import L2Init
from continual.agents.wasserstein import Wasserstein
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare

WEIGHTS = {"l.weight": torch.tensor([[0.5, -1, 2]])}
INITIAL = {"l.weight": torch.tensor([[0.0, 1, -1]])}


def test_by_hand() -> None:
    for normalise, size in ((False, 1), (True, 3)):
        agent, context = Wasserstein(1.0, normalise), by_hand.context(WEIGHTS, initial=INITIAL)
        state = agent.init(context)

        def penalty(weights: dict[str, Tensor]) -> Tensor:
            return agent.penalty(weights, state, context, by_hand.batch())  # noqa: B023

        by_hand.close(penalty(WEIGHTS), 1.25 / size)
        gradient = by_hand.gradient(penalty, WEIGHTS)["l.weight"]
        by_hand.close(gradient * size, [[1.0, 0, 2]])


def test_normalised_l2_init_by_hand() -> None:
    agent, context = L2Init(0.6, normalise=True), by_hand.context(WEIGHTS, initial=INITIAL)
    found = agent.penalty(WEIGHTS, {}, context, by_hand.batch())
    by_hand.close(found, 0.6 * (0.25 + 4 + 9) / 3)


class PlainWasserstein(PlainLoop):
    """By Python's own sorting: the k-th smallest weight is drawn to the k-th smallest initial one."""

    def penalty(self) -> Tensor:
        total = torch.zeros(())
        for name, param in self.weights():
            now, first = param.detach().flatten().tolist(), sorted(self.initial[name].flatten().tolist())
            wanted = [0.0] * len(now)
            for rank, place in enumerate(sorted(range(len(now)), key=now.__getitem__)):
                wanted[place] = first[rank]
            distance = ((param.flatten() - torch.tensor(wanted)) ** 2).sum()
            total = total + distance / (len(now) if self.agent.normalise else 1)
        return self.agent.wasserstein_weight * total


@pytest.mark.parametrize(("network", "normalise"), [("mlp_with_norm", False), ("convnet", True)])
def test_equals_a_plain_loop(network: str, normalise: bool) -> None:
    agents = [Wasserstein(0.1, normalise), Wasserstein(0.03, normalise)]
    compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainWasserstein)
