import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from continual import random
from continual.agents.agent import Context, Update
from continual.agents.continual_backprop import ContinualBackprop, _rank
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.convnet import ConvNet
from continual.networks.mlp import MLP
from continual.networks.network import Network
from continual.optimizers.adam import Adam
from continual.optimizers.sgd import Slots
from continual.tree import Tree
from tests.agents.plain_loop import (
    BATCH,
    CLASSES,
    IMAGE,
    NETWORKS,
    OPTIMIZERS,
    PlainLoop,
    SmallConvNet,
    batches,
    compare,
    seen,
    small_mlp,
)


class PlainContinualBackprop(PlainLoop):
    """Unit by unit, with Python's numbers."""

    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        layers = self.network.hidden_layers
        self.age = {layer.name: [0] * layer.units for layer in layers}
        self.utility = {layer.name: [0.0] * layer.units for layer in layers}
        self.h_mean = {layer.name: [[0.0] * layer.spread for _ in range(layer.units)] for layer in layers}
        self.owed = {layer.name: 0.0 for layer in layers}

    def after_step(self, features: dict[str, Tensor]) -> None:
        layers = self.network.hidden_layers
        chosen = {layer.name: self.choose(layer, features[layer.name]) for layer in layers}
        for layer in layers:
            outgoing = self.network.get_submodule(layer.outgoing)
            for unit in chosen[layer.name]:
                for place in range(layer.spread):
                    mean = self.h_mean[layer.name][unit][place] / self.correction(layer.name, unit)
                    for k in range(len(outgoing.bias)):
                        column = outgoing.weight[k, unit * layer.spread + place]
                        outgoing.bias[k] += column.sum().item() * mean
                fresh = self.draw(layer.incoming)["weight"][unit]
                if fresh.ndim == 1:  # of a linear layer
                    fresh = self.agent.reinit_scale * fresh
                self.replace(layer, unit, fresh, 0.0)
                self.age[layer.name][unit] = 0
                self.utility[layer.name][unit] = 0.0
                self.h_mean[layer.name][unit] = [0.0] * layer.spread

    def choose(self, layer, features: Tensor) -> list[int]:
        agent, name, d = self.agent, layer.name, self.agent.decay_rate
        h = F.max_pool2d(features, layer.pool) if layer.pool > 1 else features
        mature = []
        for unit in range(layer.units):
            self.age[name][unit] += 1
            places = h[:, unit].flatten(1).T if layer.spread > 1 else h[:, unit].reshape(1, -1)
            for place, values in enumerate(places):
                old = self.h_mean[name][unit][place]
                self.h_mean[name][unit][place] = d * old + (1 - d) * values.mean().item()
            y = self.use(layer, unit, h[:, unit])
            self.utility[name][unit] = d * self.utility[name][unit] + (1 - d) * y
            if self.age[name][unit] > agent.maturity_threshold:
                mature.append(unit)
        n = agent.replacement_rate * len(mature)
        if agent.accumulate:
            self.owed[name] += n
            count = int(self.owed[name])
            self.owed[name] -= count
        elif n >= 1:
            count = int(n)
        else:
            count = 1 if random.uniform(random.stream(self.key, f"{name}/chance"), (1,)).item() < n else 0
        if agent.util_type == "random":
            utility = random.uniform(random.stream(self.key, f"{name}/utility"), (layer.units,)).tolist()
        else:
            utility = [u / self.correction(name, unit) for unit, u in enumerate(self.utility[name])]
        return sorted(mature, key=lambda unit: utility[unit])[:count]

    def use(self, layer, unit: int, h: Tensor) -> float:
        w_in = self.network.get_submodule(layer.incoming).weight[unit].abs().mean().item()
        columns = slice(unit * layer.spread, (unit + 1) * layer.spread)
        w_out = self.network.get_submodule(layer.outgoing).weight[:, columns].abs().mean().item()
        h_mean = sum(self.h_mean[layer.name][unit]) / layer.spread / self.correction(layer.name, unit)
        change = (h - h_mean).abs().mean().item()
        match self.agent.util_type:
            case "weight":
                return w_out
            case "contribution":
                return w_out * h.abs().mean().item()
            case "adaptation":
                return 1 / w_in if w_in > 0 else 0.0
            case "zero_contribution":
                return w_out * change
            case "adaptable_contribution":
                return w_out * change / w_in if w_in > 0 else 0.0
            case "feature_by_input":
                return change / w_in if w_in > 0 else 0.0
            case _:
                return 0.0

    def correction(self, layer: str, unit: int) -> float:
        return 1 - self.agent.decay_rate ** self.age[layer][unit]


def same_ages(state: Tree, loops: list[PlainContinualBackprop]) -> None:
    for r, loop in enumerate(loops):
        ages = {name: units.age[r].tolist() for name, units in state["agent"].items()}
        assert ages == loop.age, f"replica {r}, step {loop.steps_done - 1}"


@pytest.mark.parametrize(
    ("network", "optimizer", "util_type", "accumulate"),
    [
        ("mlp", "sgd", "weight", False),
        ("mlp", "adam", "contribution", True),
        ("mlp_with_norm", "sgd", "adaptation", True),
        ("convnet", "adam", "zero_contribution", False),
        ("convnet", "sgd", "adaptable_contribution", True),
        ("mlp", "adam", "adaptable_contribution", False),
        ("convnet", "adam", "feature_by_input", True),
        ("mlp", "sgd", "random", False),
    ],
)
def test_equals_a_plain_loop(network: str, optimizer: str, util_type: str, accumulate: bool) -> None:
    agents = [
        ContinualBackprop(0.0231357, 0.99, 10, util_type, accumulate),
        ContinualBackprop(0.3141593, 0.9, 23, util_type, accumulate),
    ]
    loops = compare(
        NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainContinualBackprop, check=same_ages
    )
    for loop in loops:
        times = [(layer, unit) for _, layer, unit in loop.replaced]
        for layer in loop.network.hidden_layers:
            assert max(times.count((layer.name, unit)) for unit in range(layer.units)) >= 2


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_equals_a_plain_loop_with_what_the_released_code_does(network: str) -> None:
    agents = [
        ContinualBackprop(rate, 0.9, 10, reinit_scale=2.45, adam_correction="released") for rate in (0.1, 0.3)
    ]
    for loop in compare(NETWORKS[network](), agents, OPTIMIZERS["adam"], PlainContinualBackprop):
        assert len(loop.replaced) > 20


def test_the_released_correction_is_adams() -> None:
    agent = ContinualBackprop(adam_correction="released")
    with pytest.raises(ConfigError, match=r"^agent\.adam_correction: released .*optimizer=adam"):
        Learner.of(small_mlp(), agent, OPTIMIZERS["sgd"])


def test_a_replaced_units_weights_are_corrected_as_in_their_first_step() -> None:
    """Their first step is of the size lr, whatever the gradient; so are those of base's first."""
    agent = ContinualBackprop(replacement_rate=0.5, maturity_threshold=5)
    learner = Learner.of(small_mlp(), agent, Adam(lr=1e-3))
    numbers: dict[str, dict[str, Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(0), numbers)
    seen = 0
    with torch.no_grad():
        for step, (x, y) in enumerate(batches(60)):
            before = state
            state = learner.step(state, numbers, x, y, random.key(0), torch.tensor(step))
            fresh_U = before["optimizer"].counts["hidden1"] == 0
            moved = (state["params"]["output.weight"] - before["params"]["output.weight"])[:, fresh_U].abs()
            moved = moved[moved > 0]
            torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-2, atol=0)
            seen += len(moved) * (step > 0)
    assert seen > 100


@pytest.mark.parametrize(
    ("network", "image"),
    [
        (small_mlp(), torch.randn(IMAGE)),
        (ConvNet(IMAGE, CLASSES, kernel_sizes=[3], channels=[5], hidden_sizes=[7, 7]), torch.randn(IMAGE)),
        (SmallConvNet(), torch.ones(IMAGE)),
    ],
    ids=["mlp", "convolution to linear", "convolution to convolution, on a flat image"],
)
def test_replacing_units_that_are_constant_changes_no_output(network: Network, image: Tensor) -> None:
    agent = ContinualBackprop(replacement_rate=0.5, decay_rate=0.0, maturity_threshold=0)
    anatomy = Learner.of(network, agent, OPTIMIZERS["sgd"]).anatomy
    params = {name: param.detach().clone() for name, param in network.named_parameters()}
    context = Context(anatomy, params, torch.tensor(0), random.key(0))
    x = image.expand(BATCH, *IMAGE)
    with torch.no_grad():
        logits, features = network(x)
        after = agent.after_update(
            Update(params, Slots({}, {}), agent.init(context)), seen(features), context
        )
        network.load_state_dict(after.params)
        torch.testing.assert_close(network(x)[0], logits, rtol=1e-5, atol=1e-6)
    for layer in network.hidden_layers:
        replaced = after.state[layer.name].age == 0
        assert replaced.sum() == layer.units // 2
        name = f"{layer.incoming}.weight"
        changed = (after.params[name] != params[name]).flatten(1).all(1)
        assert torch.equal(changed, replaced)


@pytest.mark.parametrize("replacement_rate", [0.004, 0.013, 0.3])
@pytest.mark.parametrize("accumulate", [False, True])
def test_replaces_as_many_units_as_the_rate_says(replacement_rate: float, accumulate: bool) -> None:
    """Of 100 units, all mature: `accumulate` loses nothing, without it all above a whole unit is lost."""
    steps, units = 200, 100
    network = MLP((1, 2, 2), CLASSES, hidden_sizes=[units])
    agent = ContinualBackprop(replacement_rate, 0.9, 0, "random", accumulate)
    anatomy = Learner.of(network, agent, OPTIMIZERS["sgd"]).anatomy
    params = {name: param.detach() for name, param in network.named_parameters()}
    start = Context(anatomy, params, torch.tensor(0), random.key(0))
    update = Update(params, Slots({}, {}), agent.init(start))
    features = {"hidden0": torch.rand(3, units)}
    counts = []
    for step in range(steps):
        context = start._replace(key=random.fold(start.key, step))
        update = agent.after_update(update, seen(features), context)
        counts.append(int((update.state["hidden0"].age == 0).sum()))
    n = replacement_rate * units
    if accumulate:
        assert set(counts) <= {math.floor(n), math.ceil(n)}
        assert sum(counts) == pytest.approx(n * steps, abs=1)
    elif n >= 1:
        assert set(counts) == {math.floor(n)}
    else:
        assert set(counts) == {0, 1}
        assert sum(counts) == pytest.approx(n * steps, abs=4 * math.sqrt(n * (1 - n) * steps))


def test_ranks_like_a_stable_sort() -> None:
    scores = torch.tensor([0.3, 0.0, 0.3, -1.0, torch.inf, 0.0, torch.inf, 0.3])
    assert _rank(scores).tolist() == scores.argsort(stable=True).argsort().tolist()
