"""What a method may see and do, each by a small one (hooks.py) against a plain loop and the contracts."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from continual import measuring, random
from continual.agents.agent import Agent
from continual.agents.base import Base
from continual.agents.ewc import EWC
from continual.agents.l2 import L2
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.network import Network
from continual.optimizers import SGD, Optimizer
from tests import tiny
from tests.agents import hooks
from tests.agents.plain_loop import BATCH, CLASSES, IMAGE, NETWORKS, OPTIMIZERS, PlainLoop, compare
from tests.contracts.test_nothing_waits import step_without_content


def config_of(compose, hook: str, *overrides: str):
    config = compose(*overrides)
    return config | copy.deepcopy(hooks.NODES[hook])


every_hook = pytest.mark.parametrize("hook", hooks.NODES)


@every_hook
def test_packing_changes_nothing(tmp_path, compose, hook) -> None:
    configs = [tiny.vary(config_of(compose, hook), r) for r in range(3)]
    packed = tiny.train(configs, tmp_path / "packed")
    (alone,) = tiny.train(configs[1:2], tmp_path / "alone")
    tiny.assert_equal(alone.state, packed[1].state)
    assert alone.tasks == packed[1].tasks
    assert len({run.tasks for run in packed}) == 3


@every_hook
def test_a_resumed_run_is_as_one_that_was_never_stopped(tmp_path, compose, hook) -> None:
    """Stopped at each pause in turn, and so before, at and after the start of the second task."""
    config = config_of(compose, hook, "engine.chunk_steps=10")
    (whole,) = tiny.train([config], tmp_path / "whole")
    for _ in range(3):
        tiny.train_until(1, [config], tmp_path / "stopped")
    (resumed,) = tiny.train([config], tmp_path / "stopped")
    tiny.assert_equal(resumed.state, whole.state)
    assert resumed.tasks == whole.tasks


@every_hook
def test_nothing_waits(compose, hook) -> None:
    step_without_content(config_of(compose, hook))


@tiny.compiles
@pytest.mark.slow
@pytest.mark.parametrize("hook", ["optimizer", "key", "buffers"])
def test_the_step_is_one_graph(compose, caplog, hook) -> None:
    """What the other hooks do is in the steps of agents of ours, each of which the contracts compile."""
    ends = []
    for compiled in (False, True):
        population = tiny.population([config_of(compose, hook)], compiled=compiled)
        population.start_task(0)
        population.advance(20)
        ends.append(population.replica_state(0))
    assert "uncompiled" not in caplog.text
    tiny.assert_close(*ends, relative=1e-4)


class PlainNoisy(PlainLoop):
    def transformed(self) -> None:
        for name, param in self.network.named_parameters():
            noise = random.normal(random.stream(self.key, name), param.shape)
            param.grad = param.grad / (1 + self.steps_done) + self.agent.scale * noise


class PlainUndoing(PlainLoop):
    def penalty(self) -> Tensor:
        return 0.05 / 2 * sum((param**2).sum() for _, param in self.weights())

    def transformed(self) -> None:
        """Remembers what is there before the step."""
        self.before = [param.detach().clone() for param in self.network.parameters()]
        self.grads = [param.grad.clone() for param in self.network.parameters()]

    def after_step(self, features: dict[str, Tensor]) -> None:
        names = dict(self.weights())
        for (name, param), before, grad in zip(
            self.network.named_parameters(), self.before, self.grads, strict=True
        ):
            of_loss = grad - 0.05 * before if name in names else grad
            param += self.agent.share * (before - param) - 0.1 * grad + 0.2 * of_loss


class PlainComparing(PlainLoop):
    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.last_x = torch.zeros(BATCH, *IMAGE)
        self.last = copy.deepcopy(self.network)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, before = x, y, copy.deepcopy(self.network)
        super().step(x, y)
        self.last_x, self.last = x, before

    def penalty(self) -> Tensor:
        now, then = self.network(self.last_x)[0], self.last(self.last_x)[0].detach()
        logits, features = self.network(self.x)
        first = next(iter(features.values()))
        error = sum((logits[b] - self.y[b]).pow(2).sum() for b in range(BATCH)) / logits.numel()
        return self.agent.strength * F.mse_loss(now, then) + 0.1 * first.abs().mean() + 0.01 * error


@pytest.mark.parametrize(
    ("agents", "plain"),
    [
        ([hooks.Noisy(0.1), hooks.Noisy(0.01)], PlainNoisy),
        ([hooks.Undoing(0.5, plus=L2(0.05)), hooks.Undoing(0.1, plus=L2(0.05))], PlainUndoing),
        ([hooks.Comparing(0.3), hooks.Comparing(3.0)], PlainComparing),
    ],
    ids=["transform_gradients", "after_update", "penalty"],
)
@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_equals_a_plain_loop(network: str, agents: list[Agent], plain: type[PlainLoop]) -> None:
    compare(NETWORKS[network](), agents, OPTIMIZERS["sgd"], plain, steps=60)


class PlainPulled(PlainLoop):
    """An optimiser of its own, by the names that small_mlp gives."""

    def __init__(self, network: Network, agent: Agent, optimizer: Optimizer, seed: int) -> None:
        super().__init__(network, agent, SGD(lr=1.0), seed)

    def transformed(self) -> None:
        key = random.fold(random.stream(random.key(self.seed), "optimizer"), self.steps_done)
        for name, param in self.network.named_parameters():
            if name in ("hidden0.weight", "hidden1.weight"):
                param.grad += param.detach() - self.initial[name]
            elif name.endswith(".bias") and "norm" not in name:
                param.grad = random.normal(random.stream(key, name), param.shape)
            param.grad *= 0.05


def test_an_optimiser_sees_a_key_the_initial_weights_and_what_each_parameter_is_for() -> None:
    compare(NETWORKS["mlp_with_norm"](), [Base(), Base()], hooks.Pulled(0.05), PlainPulled, steps=60)
    roles = Learner.of(NETWORKS["convnet"](), Base(), SGD()).anatomy.roles
    assert {name: role for name, role in roles.items() if role != "bias"} == {
        "first.weight": "input",
        "second.weight": "hidden",
        "third.weight": "hidden",
        "output.weight": "output",
    }


def test_a_task_starts_once_with_gradients_on_its_first_epoch(compose) -> None:
    config = config_of(compose, "start_task")
    population = tiny.population([config, tiny.vary(config, 1)])
    population.start_task(0)
    population.advance(20)
    before = population.replica_state(1)
    assert before["agent"] == 0, "the first task starts with the network as it is"
    population.start_task(1)
    after = population.replica_state(1)
    assert after["agent"] == 1
    assert not any(value.any() for name, value in after.items() if "moment" in name)
    assert after["optimizer/steps"] == 0

    env, learner = population.environment, population.learner
    key = random.stream(random.key(config["seed"] + 1), "environment")
    task = env.task(env.draw_stream(key), key, 1)
    params = {name: before[f"params/{name}"].clone().requires_grad_() for name in learner.anatomy.roles}
    places = env.shuffle(key, 1, 0)
    assert len(places) == 40 // 7
    for batch in places:
        x = env.dataset.x_train[task["rows"][batch]].float() / 127.5 - 1
        F.cross_entropy(learner.forward(params, x)[0], task["labels"][batch]).backward()
    for name, param in params.items():
        if name != "output.bias":  # which has noise
            expected = param.detach() / 2 - param.grad
            torch.testing.assert_close(after[f"params/{name}"], expected, rtol=1e-4, atol=1e-5)


def test_what_is_measured_may_be_other_weights(compose) -> None:
    population = tiny.population([config_of(compose, "evaluated")])
    population.start_task(0)
    population.advance(20)
    state = population.replica_state(0)
    mean = {name: state[f"agent/{name}"] for name in population.learner.anatomy.weights}
    assert any(not torch.equal(mean[name], state[f"params/{name}"]) for name in mean)
    magnitude = measuring.at_task_end(population)["weight_magnitude"][0]
    entries = torch.cat([value.flatten() for value in mean.values()])
    assert float(magnitude) == pytest.approx(float(entries.abs().mean()), rel=1e-5)


def test_a_network_draws_in_training_and_not_in_evaluation() -> None:
    network = hooks.Dropping(IMAGE, CLASSES)
    learner = Learner.of(network, Base(), SGD(lr=0.1))
    numbers: dict[str, dict[str, Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(3), numbers)
    x, y = torch.randn(BATCH, *IMAGE), torch.arange(BATCH) % CLASSES
    after = learner.step(state, numbers, x, y, random.key(3), torch.tensor(17))
    key = random.fold(random.stream(random.key(3), "forward"), 17)
    network.load_state_dict(state["params"])
    F.cross_entropy(network(x, key)[0], y).backward()
    for name, param in network.named_parameters():
        expected = param.detach() - 0.1 * param.grad
        torch.testing.assert_close(after["params"][name], expected)
    torch.testing.assert_close(learner.forward(state["params"], x)[0], network(x)[0].detach())


def test_running_statistics_are_each_replicas_own() -> None:
    """Trained like torch.nn, and measured with the running statistics."""
    network = hooks.BatchNormed(IMAGE, CLASSES)
    learner = Learner.of(copy.deepcopy(network), Base(), SGD(lr=0.1))
    numbers: dict[str, dict[str, Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(0), numbers)
    assert set(state["initial"]) == {"hidden.weight", "output.weight", "output.bias"}
    network.load_state_dict({**state["params"], **state["buffers"]})
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(20):
        x, y = torch.randn(BATCH, *IMAGE) + 1, torch.arange(BATCH) % CLASSES
        before = {name: value.clone() for name, value in state["buffers"].items()}
        kept = dict(state["buffers"])
        state = learner.step(state, numbers, x, y, random.key(0), torch.tensor(step))
        tiny.assert_equal(kept, before)
        optimizer.zero_grad()
        F.cross_entropy(network(x)[0], y).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        ours = {**state["params"], **state["buffers"]}[name]
        torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5)
    assert state["buffers"]["norm.num_batches_tracked"] == 20
    measured = learner.forward(learner.evaluated(state, numbers), x)[0]
    torch.testing.assert_close(measured, network.eval()(x)[0].detach(), rtol=1e-4, atol=1e-4)


def test_fisher_information_is_that_of_the_running_statistics() -> None:
    network = hooks.BatchNormed(IMAGE, CLASSES)
    learner = Learner.of(copy.deepcopy(network), EWC(use_fisher=True, fisher_examples=BATCH), SGD())
    numbers: dict[str, dict[str, Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(0), numbers)
    state["buffers"]["norm.running_mean"] += 0.3
    state["buffers"]["norm.running_var"] *= 4
    x, y = torch.randn(BATCH, *IMAGE) + 1, torch.arange(BATCH) % CLASSES
    found = learner.end_task(state, numbers, x, y, random.key(1)).importance
    network.load_state_dict({**state["params"], **state["buffers"]})
    network.eval()
    for name, squares in found.items():
        param = network.get_parameter(name)
        each = [
            torch.autograd.grad(F.cross_entropy(network(x[i : i + 1])[0], y[i : i + 1]), param)[0]
            for i in range(BATCH)
        ]
        torch.testing.assert_close(squares, torch.stack(each).square().mean(0), rtol=1e-4, atol=1e-7)


def test_draws_of_torchs_own_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, CLASSES))
    with pytest.raises(ConfigError, match=r"^network: '1' is a dropout .* key"):
        Learner.of(network, Base(), SGD())
