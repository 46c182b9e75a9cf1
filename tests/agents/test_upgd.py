import math

import pytest
import torch

from continual import random
from continual.agents.upgd import UPGD
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, SGD, PlainLoop, compare

WEIGHTS = {"l.weight": torch.tensor([[1.0, -2], [0.5, 3]]), "l.bias": torch.tensor([0.1, -0.2])}
GRADIENTS = {"l.weight": torch.tensor([[0.2, 0.1], [-0.4, 0.3]]), "l.bias": torch.tensor([0.5, -0.5])}
RESULTS = {
    ("global", True): ([[0.98437883, -2.00068941], [0.51025766, 2.96732961]], [0.07179117, -0.16867703]),
    ("global", False): ([[0.97900091, -1.99800045], [0.49950182, 2.967]], [0.05369291, -0.15013464]),
    ("local", True): ([[0.98560477, -2.00130238], [0.51733916, 2.97520947]], [0.06940117, -0.16430985]),
}


@pytest.mark.parametrize(("scope", "correct_max"), RESULTS)
def test_by_hand(scope: str, correct_max: bool) -> None:
    agent = UPGD(0.9, 0.0, scope, protecting=True, correct_max=correct_max)
    context = by_hand.context(WEIGHTS)
    gradients, state = agent.transform_gradients(GRADIENTS, WEIGHTS, agent.init(context), context)
    after = {name: (1 - 0.1 * 0.01) * w - 0.1 * gradients[name] for name, w in WEIGHTS.items()}
    by_hand.close(after["l.weight"], RESULTS[scope, correct_max][0])
    by_hand.close(after["l.bias"], RESULTS[scope, correct_max][1])
    assert float(state.total) == pytest.approx(0.1)


class PlainUPGD(PlainLoop):
    """Entry by entry, in Python's numbers."""

    def transformed(self) -> None:
        agent, params = self.agent, dict(self.network.named_parameters())
        d = agent.utility_decay
        if not hasattr(self, "utility"):
            self.utility = {name: [0.0] * param.numel() for name, param in params.items()}
        corrected = {}
        for name, param in params.items():
            pairs = zip(
                self.utility[name], param.grad.flatten().tolist(), param.flatten().tolist(), strict=True
            )
            self.utility[name] = [d * u + (1 - d) * -g * w for u, g, w in pairs]
            corrected[name] = [u / (1 - d ** (self.steps_done + 1)) for u in self.utility[name]]
        largest = max(max(values) for values in corrected.values())
        for name, param in params.items():
            row = param[0].numel() if param.ndim > 1 else param.numel()
            noise = random.normal(random.stream(self.key, name), param.shape).flatten().tolist()
            grads = param.grad.flatten().tolist()
            after = []
            for i, (g, xi) in enumerate(zip(grads, noise, strict=True)):
                own = corrected[name][i // row * row : (i // row + 1) * row]
                by = largest if agent.scope == "global" else math.sqrt(sum(u * u for u in own))
                gate = 1 - 1 / (1 + math.exp(-corrected[name][i] / max(by, 1e-12)))
                xi = agent.noise * xi
                after.append((g + xi) * gate if agent.protecting else g + xi * gate)
            param.grad.copy_(torch.tensor(after).reshape(param.shape))


@pytest.mark.parametrize(
    ("network", "scope", "protecting"), [("mlp_with_norm", "global", True), ("convnet", "local", False)]
)
def test_equals_a_plain_loop(network: str, scope: str, protecting: bool) -> None:
    agents = [UPGD(d, noise, scope, protecting) for d, noise in ((0.9, 0.01), (0.99, 0.1))]
    compare(NETWORKS[network](), agents, SGD(lr=0.02), PlainUPGD)
