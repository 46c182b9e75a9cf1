import torch
from torch import Tensor

from continual import random
from continual.agents.spectral import Spectral
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare

WEIGHTS = {"l.weight": torch.tensor([[3.0, 0], [4, 5]]), "l.bias": torch.tensor([0.6, 0.8])}


def test_by_hand() -> None:
    agent, context = Spectral(1.0), by_hand.context(WEIGHTS)
    state = {"l.weight": torch.tensor([1.0, 1]) / 2**0.5}

    def penalty(weights: dict[str, Tensor]) -> Tensor:
        return agent.penalty(weights, state, context, by_hand.batch())

    by_hand.close(penalty(WEIGHTS), 1937.0)
    gradient = by_hand.gradient(penalty, WEIGHTS)
    by_hand.close(gradient["l.weight"], [[264, 264], [792, 792]])
    by_hand.close(gradient["l.bias"], [2.4, 3.2])
    zero = {**WEIGHTS, "l.bias": torch.zeros(2)}
    assert torch.equal(by_hand.gradient(penalty, zero)["l.bias"], torch.zeros(2))


def test_v_becomes_the_first_singular_vector() -> None:
    agent, context = Spectral(), by_hand.context(WEIGHTS)
    update = by_hand.update(WEIGHTS, agent.init(context))
    for _ in range(30):
        update = agent.after_update(update, by_hand.step({}, {}), context)
    sigma = (WEIGHTS["l.weight"] @ update.state["l.weight"]).norm()
    by_hand.close(sigma, float(torch.linalg.svdvals(WEIGHTS["l.weight"])[0]))


class PlainSpectral(PlainLoop):
    """One power iteration by the book for each layer."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        key = random.stream(random.key(self.seed), "agent")
        self.v = {}
        for name, weight in self.weights():
            if weight.ndim > 1:
                v = random.normal(random.stream(key, name), (weight[0].numel(),))
                self.v[name] = v / v.norm()

    def penalty(self) -> Tensor:
        total = torch.zeros(())
        for name, weight in self.weights():
            if weight.ndim > 1:
                total = total + ((weight.reshape(len(weight), -1) @ self.v[name]).norm() ** 2 - 1) ** 2
            else:
                total = total + weight.pow(2).sum() ** 2
        return self.agent.spectral_weight * total

    def after_step(self, features: dict[str, Tensor]) -> None:
        for name, weight in self.weights():
            if weight.ndim > 1:
                matrix = weight.reshape(len(weight), -1)
                u = matrix @ self.v[name]
                v = matrix.T @ (u / u.norm())
                self.v[name] = v / v.norm()


def test_equals_a_plain_loop() -> None:
    for network in ("mlp_with_norm", "convnet"):
        compare(NETWORKS[network](), [Spectral(0.1), Spectral(0.01)], OPTIMIZERS["adam"], PlainSpectral)
