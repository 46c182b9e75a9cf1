import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from continual.agents.l2 import L2
from continual.agents.plasticity_injection import PlasticityInjection
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.convnet import ConvNet
from continual.networks.mlp import MLP
from continual.optimizers import SGD
from tests import tiny
from tests.agents.plain_loop import CLASSES, IMAGE, NETWORKS, OPTIMIZERS, PlainLoop, compare


def network_of(kind: str):
    if kind == "mlp":
        return MLP(IMAGE, CLASSES, hidden_sizes=[8, 8], injectable=2)
    return ConvNet(IMAGE, CLASSES, kernel_sizes=[3], channels=[4], hidden_sizes=[8], injectable=2)


class PlainInjection(PlainLoop):
    """Three heads of torch.nn, of which two are frozen once they are in use."""

    def start(self, params: dict[str, Tensor], initial: dict[str, Tensor]) -> None:
        super().start(params, initial)
        self.frozen: list[nn.Module] = []
        self.head = [name for name in ("hidden0", "hidden1", "output") if f"old.{name}.bias" in params]
        assert len(self.head) == 2
        self.jump = None

    def logits(self, x: Tensor) -> Tensor:
        if "hidden0" in self.head:
            z = F.max_pool2d(F.relu(self.network.conv0(x)), 2).flatten(1)
        else:
            z = F.relu(self.network.hidden0(x.flatten(1)))
        first, last = (self.network.get_submodule(name) for name in self.head)
        logits = last(F.relu(first(z)))
        if self.frozen:
            old, fresh = self.frozen
            logits = logits + old(z) - fresh(z)
        return logits

    def step(self, x: Tensor, y: Tensor) -> None:
        self.key = self.key_of_step()
        loss = F.cross_entropy(self.logits(x), y) + self.penalty()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.steps_done + 1 == self.agent.injection_step:
            with torch.no_grad():
                before = self.logits(x)
                self.inject()
                self.jump = float((self.logits(x) - before).abs().max())
        self.steps_done += 1

    def inject(self) -> None:
        copies = {"old": [], "fresh": []}
        for part in ("old", "fresh"):
            for name in self.head:
                module = self.network.get_submodule(name)
                if part == "fresh":
                    for kind, value in self.draw(name).items():
                        getattr(module, kind).copy_(value)
                        self._forget(getattr(module, kind), slice(None))
                held = self.network.get_submodule(f"{part}.{name}")
                held.load_state_dict(module.state_dict())
                own = nn.Linear(module.in_features, module.out_features).requires_grad_(False)
                own.load_state_dict(module.state_dict())
                copies[part].append(own)
        self.frozen = [nn.Sequential(first, nn.ReLU(), last) for first, last in copies.values()]

    def penalty(self) -> Tensor | float:
        if self.agent.plus is None:
            return 0.0
        trained = (
            p for name, p in self.network.named_parameters() if not name.startswith(("old.", "fresh."))
        )
        return self.agent.plus.l2_weight / 2 * sum((param**2).sum() for param in trained)


@pytest.mark.parametrize(("optimizer", "plus"), [("adam", None), ("sgd", L2(0.01))])
@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_equals_a_plain_loop(network: str, optimizer: str, plus: L2 | None) -> None:
    agents = [PlasticityInjection(100, plus=plus), PlasticityInjection(171, plus=plus)]
    for loop in compare(network_of(network), agents, OPTIMIZERS[optimizer], PlainInjection):
        assert loop.frozen
        assert loop.jump < 1e-5, "the outputs stay as they are"


@pytest.mark.parametrize("layers", [1, 2])
def test_adam_counts_a_fresh_layers_steps_anew(compose, layers: int) -> None:
    config = compose("agent=plasticity_injection", "agent.injection_step=9", f"network.injectable={layers}")
    population = tiny.population([config])
    population.start_task(0)
    population.advance(9)
    at = population.replica_state(0)
    assert at["optimizer/steps"] == 9
    counts = {name: count_U for name, count_U in at.items() if name.startswith("optimizer/counts/")}
    assert [*counts] == [f"optimizer/counts/{name}" for name in ("hidden1", "output")[2 - layers :]]
    assert not any(count_U.any() for count_U in counts.values())
    assert not at["optimizer/slots/first_moment/output.weight"].any()
    assert at["optimizer/slots/first_moment/hidden0.weight"].any()
    population.advance(5)
    after = population.replica_state(0)
    for name, value in at.items():
        if name.startswith("params/"):
            is_held = "old." in name or "fresh." in name
            assert torch.equal(after[name], value) == is_held, name
    trained = at["params/output.weight"]
    assert torch.equal(at["params/fresh.output.weight"], trained)
    assert not torch.equal(at["params/old.output.weight"], trained)


def test_other_layers_counts_stay(compose) -> None:
    """Of a second agent, which replaces units of them."""
    chosen = ("agent=plasticity_injection", "agent.injection_step=9", "agent@agent.plus=redo")
    population = tiny.population([compose(*chosen, "network.injectable=1")])
    population.start_task(0)
    population.advance(9)
    at = population.replica_state(0)
    assert not at["optimizer/counts/output"].any()
    assert at["optimizer/counts/hidden0"].tolist() == [9.0] * 9
    assert at["optimizer/counts/hidden1"].tolist() == [9.0] * 9


def test_weight_decay_does_not_move_what_is_frozen(compose) -> None:
    config = compose(
        *("agent=plasticity_injection", "agent.injection_step=3"),
        *("optimizer=sgd", "optimizer.weight_decay=0.5", "optimizer.momentum=0.9"),
    )
    population = tiny.population([config])
    population.start_task(0)
    population.advance(3)
    before = population.replica_state(0)
    population.advance(10)
    after = population.replica_state(0)
    held = [name for name in before if name.startswith(("params/old.", "params/fresh."))]
    assert len(held) == 8
    assert all(torch.equal(before[name], after[name]) for name in held)


def at_the_second_task(config) -> dict[str, Tensor]:
    """The state with which it starts, in which the held output layers have to be empty again."""
    population = tiny.population([config])
    population.start_task(0)
    population.advance(20)
    population.start_task(1)
    state = population.replica_state(0)
    held = [state[f"params/{part}.output.{kind}"] for part in ("old", "fresh") for kind in ("weight", "bias")]
    assert not any(value.any() for value in held)
    return state


@pytest.mark.parametrize("output_layer", ["zero", "redraw"])
def test_an_output_layer_that_tasks_reset_is_reset_as_a_whole(compose, output_layer: str) -> None:
    config = compose(
        "agent=plasticity_injection", "agent.injection_step=3", f"env.output_layer={output_layer}"
    )
    state = at_the_second_task(config)
    assert state["params/output.weight"].any() == (output_layer == "redraw")


def test_replaced_units_are_out_of_the_held_layers_too(compose) -> None:
    """Those read the layer before them as the trained one does."""
    config = compose(
        *("agent=plasticity_injection", "agent.injection_step=3", "network.injectable=1"),
        *("agent@agent.plus=redo", "agent.plus.recycle_period=10", "agent.plus.recycle_threshold=1000"),
    )
    population = tiny.population([config])
    population.start_task(0)
    population.advance(9)
    before = population.replica_state(0)
    population.advance(1)
    after = population.replica_state(0)
    for name in ("output", "old.output", "fresh.output"):
        assert before[f"params/{name}.weight"].any()
        assert not after[f"params/{name}.weight"].any(), "every unit was replaced"
        assert after[f"params/{name}.bias"].any()


def test_a_head_reset_is_one_of_the_held_layers_too(compose) -> None:
    config = compose("agent=plasticity_injection", "agent.injection_step=3", "agent@agent.plus=head_reset")
    state = at_the_second_task(config)
    assert torch.equal(state["params/output.weight"], state["initial/output.weight"])


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("activation", ["prelu", "rational"])
def test_the_last_layers_may_be_any(compose, layers: int, activation: str) -> None:
    """With norms, learnt activations and dropout among them: the outputs stay as they are."""
    config = compose(
        *("agent=plasticity_injection", "agent.injection_step=12", f"network.injectable={layers}"),
        *("network.layer_norm=true", f"network.activation={activation}", "network.dropout=0.2"),
        "optimizer=sgd",
    )
    population = tiny.population([config])
    population.start_task(0)
    population.advance(11)
    learner = population.learner
    x = torch.randn(7, *tiny.IMAGE, generator=torch.Generator().manual_seed(0))
    population.advance(1)
    params = {name: value[0] for name, value in population.state["params"].items()}
    old = {name: params.get(f"old.{name}", value) for name, value in params.items() if "." in name}
    without = {n: torch.zeros_like(v) if n.startswith(("old.", "fresh.")) else v for n, v in old.items()}
    torch.testing.assert_close(learner.forward(params, x)[0], learner.forward(without, x)[0])
    assert len([name for name in params if name.startswith("old.")]) >= 2 * layers


def test_a_network_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set network\.injectable=2"):
        Learner.of(NETWORKS["mlp"](), PlasticityInjection(), SGD())
    with pytest.raises(ConfigError, match=r"network\.injectable: 4 is more than the 3 layers"):
        MLP(IMAGE, CLASSES, hidden_sizes=[8, 8], injectable=4)
