from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from continual import random
from continual.agents.agent import Agent, weight_names
from continual.agents.base import Base
from continual.learner import Learner
from continual.networks.mlp import MLP
from continual.optimizers import SGD

KEY = random.key(0)
NUMBERS = {"agent": {}, "optimizer": {}}
SHAPE = (1, 4, 5)


@pytest.fixture
def learner():
    return Learner.of(MLP(SHAPE, 5, hidden_sizes=[9, 9], layer_norm=True), Base(), SGD(lr=0.1))


@pytest.fixture
def batch():
    x = 2 * random.uniform(random.stream(KEY, "x"), (7, *SHAPE)) - 1
    return x, random.integers(random.stream(KEY, "y"), 7, 5)


def step(learner, state, batch, count=0):
    with torch.no_grad():
        return learner.step(state, NUMBERS, *batch, KEY, torch.tensor(count))


def test_weights_are_all_but_the_parameters_of_norms(learner):
    names = [f"{layer}.{kind}" for layer in ("hidden0", "hidden1", "output") for kind in ("weight", "bias")]
    assert sorted(learner.anatomy.weights) == sorted(names)
    assert set(learner.init(KEY, NUMBERS)["initial"]) == set(names)
    plain = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 2)
    )
    assert weight_names(plain) == ("0.weight", "0.bias", "4.weight", "4.bias")


def test_the_accuracy_is_of_the_logits_before_the_update(learner, batch):
    state = learner.init(KEY, NUMBERS)
    x, y = batch
    correct, loss = 0, 0.0
    for count in range(5):
        logits, _ = learner.forward(state["params"], x)
        correct += int((logits.argmax(1) == y).sum())
        loss += float(F.cross_entropy(logits, y))
        state = step(learner, state, batch, count)
    assert state["online"]["measure"] == correct
    assert float(state["online"]["loss"]) == pytest.approx(loss, rel=1e-6)
    assert state["online"]["diverged_at"] == 0


def test_sample_plasticity_compares_the_losses_before_and_after_the_update(learner, batch):
    plain = learner.init(KEY, NUMBERS)
    learner = replace(learner, measures_plasticity=True)
    state = learner.init(KEY, NUMBERS)
    x, y = batch
    expected = 0.0
    for count in range(3):
        before = F.cross_entropy(learner.forward(state["params"], x)[0], y, reduction="none")
        state = step(learner, state, batch, count)
        plain = step(replace(learner, measures_plasticity=False), plain, batch, count)
        after = F.cross_entropy(learner.forward(state["params"], x)[0], y, reduction="none")
        shares = [max(1 - float(a) / float(b), 0) for a, b in zip(after, before, strict=True)]
        expected += sum(shares) / len(shares)
    assert float(state["online"].pop("plasticity")) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 3
    assert state["online"] == plain["online"]
    assert all(torch.equal(state["params"][name], param) for name, param in plain["params"].items())


def test_a_step_changes_no_tensor_that_it_was_given(learner, batch):
    state = learner.init(KEY, NUMBERS)
    before = {name: param.clone() for name, param in state["params"].items()}
    after = step(learner, state, batch)
    for name, param in before.items():
        assert torch.equal(state["params"][name], param)
        assert not torch.equal(after["params"][name], param), name
    for name, param in after["initial"].items():
        assert torch.equal(param, before[name])


def test_the_first_step_whose_loss_is_not_finite_is_kept(learner, batch):
    state = learner.init(KEY, NUMBERS)
    x, y = batch
    state = step(learner, state, (x, y), 40)
    assert state["online"]["diverged_at"] == 0
    state = step(learner, state, (x * torch.nan, y), 41)
    assert state["online"]["diverged_at"] == 42, "steps are counted from 1"
    state = step(learner, state, (x, y), 42)
    assert state["online"]["diverged_at"] == 42


@dataclass(frozen=True)
class Recording(Agent):
    """Keeps what it is shown."""

    def init(self, context):
        return {"key": context.key, "step": context.step, "features": torch.zeros(7, 9)}

    def after_update(self, update, step, context):
        return update._replace(
            state={"key": context.key, "step": context.step, "features": step.features["hidden0"]},
            params={**update.params, "output.bias": torch.full((5,), 3.0)},
        )


def test_an_agent_sees_features_from_before_the_step_and_changes_parameters_after_it(batch):
    learner = Learner.of(MLP(SHAPE, 5, hidden_sizes=[9, 9]), Recording(), SGD(lr=0.1))
    state = learner.init(KEY, NUMBERS)
    after = step(learner, state, batch, 17)
    _, features = learner.forward(state["params"], batch[0])
    torch.testing.assert_close(after["agent"]["features"], features["hidden0"])
    assert after["agent"]["step"] == 17
    assert torch.equal(after["params"]["output.bias"], torch.full((5,), 3.0))
    keys = [step(learner, state, batch, count)["agent"]["key"] for count in (17, 18)]
    assert torch.equal(keys[0], after["agent"]["key"])
    assert not torch.equal(*keys)


class Listing(nn.Module):
    """A user's plain module, whose features are a list."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(20, 6)
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        h = torch.relu(self.first(x.flatten(1)))
        return self.last(h), [h]


def test_a_plain_module_can_be_trained(batch):
    learner = Learner.of(Listing(), Base(), SGD(lr=0.1))
    state = learner.init(KEY, NUMBERS)
    losses = []
    for count in range(30):
        logits, features = learner.forward(state["params"], batch[0])
        assert list(features) == ["hidden0"]
        losses.append(float(F.cross_entropy(logits, batch[1])))
        state = step(learner, state, batch, count)
    assert losses[-1] < 0.8 * losses[0]


def test_a_network_trains_on_each_image_by_itself_for_squared_gradients(learner, batch):
    """What end_task offers: the mean of the squares, not the square of the mean, over a random subset."""
    seen, of_all = {}, {}

    @dataclass(frozen=True)
    class Asking(Agent):
        def end_task(self, weights, state, squared_gradients):
            seen.update(squared_gradients(4))
            of_all.update(squared_gradients(1000))
            return state

    learner = Learner.of(learner.network, Asking(), SGD())
    state = learner.init(KEY, NUMBERS)
    learner.end_task(state, NUMBERS, *batch, KEY)

    def squares(places):
        total = 0
        for x, y in zip(*(part[places] for part in batch), strict=True):
            weight = state["params"]["hidden1.weight"].clone().requires_grad_()
            logits, _ = learner.forward({**state["params"], "hidden1.weight": weight}, x[None])
            F.cross_entropy(logits, y[None]).backward()
            total = total + weight.grad**2 / len(places)
        return total

    size = len(batch[0])
    places = random.permutation(random.stream(KEY, "squared gradients"), size)[:4]
    assert places.tolist() != [0, 1, 2, 3]
    torch.testing.assert_close(seen["hidden1.weight"], squares(places))
    torch.testing.assert_close(of_all["hidden1.weight"], squares(torch.arange(size)))
    assert set(seen) == set(learner.anatomy.weights)


def test_replicas_start_from_the_stream_of_their_seed(learner):
    one, same, other = (learner.init(random.key(seed), NUMBERS)["params"] for seed in (0, 0, 1))
    for name in learner.anatomy.weights:
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
