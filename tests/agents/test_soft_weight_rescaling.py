import torch
from torch import Tensor

from continual.agents.soft_weight_rescaling import SoftWeightRescaling
from continual.learner import Learner
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, SHAPE, PlainLoop, compare


def test_by_hand() -> None:
    weights = {
        "a.weight": torch.tensor([[3.0, 4]]),
        "a.bias": torch.tensor([1.0]),
        "b.weight": torch.tensor([[2.0]]),
        "b.bias": torch.tensor([10.0]),
    }
    agent, context = SoftWeightRescaling(0.1), by_hand.context(weights)
    state = {"a.weight": torch.tensor(1.0), "b.weight": torch.tensor(1.0)}
    after = agent.after_update(by_hand.update(weights, state), by_hand.step({}, {}), context).params
    by_hand.close(after["a.bias"], [0.92])
    by_hand.close(after["b.bias"], [8.74])

    def f(w: dict[str, Tensor]) -> Tensor:
        return w["b.weight"] @ torch.relu(w["a.weight"] @ torch.ones(2) + w["a.bias"]) + w["b.bias"]

    by_hand.close(f(weights), [26.0])
    by_hand.close(f(after), [22.724])


class PlainSoftWeightRescaling(PlainLoop):
    def after_step(self, features: dict[str, Tensor]) -> None:
        so_far = 1.0
        for layer in [*self.network.hidden_layers, None]:
            name = "output" if layer is None else layer.incoming
            module = self.network.get_submodule(name)
            first, norm = self.initial[f"{name}.weight"].norm().item(), module.weight.norm().item()
            c = (self.agent.rescale_rate * first + (1 - self.agent.rescale_rate) * norm) / norm
            so_far *= c
            module.weight.mul_(c)
            module.bias.mul_(so_far)
            if layer is not None and layer.norm is not None:
                own = self.network.get_submodule(layer.norm)
                norm, first = own.weight.norm().item(), layer.units**0.5
                c = (self.agent.rescale_rate * first + (1 - self.agent.rescale_rate) * norm) / norm
                own.weight.mul_(c)
                own.bias.mul_(c)
                so_far = c


def test_equals_a_plain_loop() -> None:
    for network in ("mlp", "mlp_with_norm", "convnet"):
        agents = [SoftWeightRescaling(0.1), SoftWeightRescaling(0.01)]
        compare(NETWORKS[network](), agents, OPTIMIZERS["sgd_without_momentum"], PlainSoftWeightRescaling)


def test_it_only_scales_the_outputs_with_norms_too() -> None:
    """The norm forgets what is before it; its own scale and shift reach the outputs as weights do."""
    torch.manual_seed(0)
    network = NETWORKS["mlp_with_norm"]()
    learner = Learner.of(network, SoftWeightRescaling(0.1), OPTIMIZERS["sgd_without_momentum"], batch=SHAPE)
    start = {name: torch.randn_like(param) for name, param in network.named_parameters()}
    context = by_hand.context(start)._replace(anatomy=learner.anatomy)
    state = {name: 3 * param.norm() for name, param in start.items() if name.endswith(".weight")}
    after = learner.agent.after_update(by_hand.update(start, state), by_hand.step({}, {}), context).params
    x = torch.randn(20, *SHAPE.x_BCHW[1:])
    (before, _), (scaled, _) = (learner.forward(params, x) for params in (start, after))
    factor = (scaled * before).sum() / (before**2).sum()
    assert abs(factor - 1) > 0.1
    torch.testing.assert_close(scaled, factor * before, rtol=1e-4, atol=1e-4)
