"""Penalties against a plain loop over one network, with torch.nn and torch.optim, on the same batches."""

import math

import pytest
import torch
from torch import nn

from continual import building, random
from tests import tiny


class PlainLoop:
    """One network, trained without anything of the program but its random numbers and its tasks."""

    def __init__(self, config, optimizer, penalty):
        self.config, self.penalty = config, penalty
        self.key = random.key(config["seed"])
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 5)
        )
        self.names = {"hidden0": self.net[1], "hidden1": self.net[3], "output": self.net[5]}
        weights = random.stream(self.key, "weights")
        self.load(self.draw(weights))
        self.initial = self.draw(weights)
        self.optimizer = optimizer(self.net.parameters())
        self.accuracies, self.losses = [], []

    def draw(self, key):
        """PyTorch's initial distribution, from the program's random numbers."""
        drawn = {}
        for layer, module in self.names.items():
            for name, parameter in module.named_parameters():
                name = f"{layer}.{name}"
                uniform = random.uniform(random.stream(key, name), parameter.shape)
                drawn[name] = (1 / math.sqrt(module.in_features)) * (2 * uniform - 1)
        return drawn

    def load(self, values):
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(values[name])

    def parameters(self):
        return {
            f"{layer}.{name}": parameter
            for layer, module in self.names.items()
            for name, parameter in module.named_parameters()
        }

    def run(self):
        _, env = building.prepare(self.config)
        env_key = random.stream(self.key, "environment")
        drawn, step = env.draw_stream(env_key), 0
        for number in range(env.num_tasks):
            task = env.task(drawn, env_key, number)
            per_epoch = env.samples_per_task // env.batch_size
            correct, losses = 0, []
            for i in range(env.steps_per_task):
                places = env.shuffle(env_key, number, i // per_epoch)[i % per_epoch]
                x = env.dataset.x_train[task["rows"][places]].float() / 127.5 - 1
                y = task["labels"][places]
                logits = self.net(x)
                loss = nn.functional.cross_entropy(logits, y)
                correct += int((logits.argmax(1) == y).sum())
                losses.append(float(loss.detach()))
                agent_key = random.fold(random.stream(self.key, "agent"), step)
                self.optimizer.zero_grad()
                (loss + self.penalty(self, agent_key)).backward()
                self.optimizer.step()
                step += 1
            self.accuracies.append(correct / (env.steps_per_task * env.batch_size))
            self.losses.append(sum(losses) / len(losses))
        return self


def nothing(loop, key):
    return 0.0


def l2(loop, key):
    return 0.05 / 2 * sum((p**2).sum() for p in loop.parameters().values())


def l2_init(loop, key):
    return 0.05 / 2 * sum(((p - loop.initial[name]) ** 2).sum() for name, p in loop.parameters().items())


def l2_init_resampled(loop, key):
    fresh = loop.draw(key)
    return 0.05 / 2 * sum(((p - fresh[name]) ** 2).sum() for name, p in loop.parameters().items())


AGENTS = {
    "base": ([], nothing),
    "l2": (["agent.l2_weight=0.05"], l2),
    "l2_init": (["agent.l2_weight=0.05"], l2_init),
    "l2_init resampled": (["agent.l2_weight=0.05", "agent.sample_init_values=true"], l2_init_resampled),
}
OPTIMIZERS = {
    "sgd": (["optimizer.lr=0.05"], lambda p: torch.optim.SGD(p, lr=0.05)),
    "momentum": (
        ["optimizer=sgd", "optimizer.lr=0.02", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (["optimizer.lr=0.01"], lambda p: torch.optim.Adam(p, lr=0.01)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("agent", AGENTS)
def test_training_equals_a_plain_loop(tmp_path, compose, agent, optimizer):
    of_agent, penalty = AGENTS[agent]
    of_optimizer, torch_optimizer = OPTIMIZERS[optimizer]
    name = "adam" if optimizer == "adam" else "sgd"
    overrides = [f"agent={agent.split()[0]}", f"optimizer={name}", *of_agent, *of_optimizer]
    config = compose(*overrides, "env.steps_per_task=30")
    loop = PlainLoop(config, torch_optimizer, penalty).run()

    run, _ = tiny.train([config, tiny.vary(config, 1)], tmp_path)
    for name, parameter in loop.parameters().items():
        moved = (parameter.detach() - loop.initial[name]).abs().max()
        difference = (parameter.detach() - run.state[f"params/{name}"]).abs().max()
        assert difference < 1e-4 * moved, name
        assert torch.equal(run.state[f"initial/{name}"], loop.initial[name])
    rows = run.rows
    assert [row["online_accuracy"] for row in rows] == pytest.approx(loop.accuracies)
    assert [row["online_loss"] for row in rows] == pytest.approx(loop.losses, rel=1e-5)


@pytest.mark.parametrize("agent", [agent for agent in AGENTS if agent != "base"])
def test_a_penalty_of_strength_zero_adds_nothing(tmp_path, compose, agent):
    of_agent = [s for s in AGENTS[agent][0] if "weight" not in s]
    config = compose(f"agent={agent.split()[0]}", *of_agent, "agent.l2_weight=0")
    run, base = (tiny.train([c], tmp_path / str(i))[0] for i, c in enumerate((config, compose())))
    for name, parameter in base.state.items():
        if name.startswith("params/"):
            torch.testing.assert_close(run.state[name], parameter, rtol=0, atol=0)


def test_penalties_leave_the_parameters_of_norms_alone(compose):
    """With a strength that holds everything, only the norms and what they do not cover still move."""
    config = compose("agent=l2_init", "network.layer_norm=true", "optimizer=sgd", "optimizer.lr=1e-3")
    config["agent"]["l2_weight"] = 500.0
    population = tiny.population([config])
    before = population.replica_state(0)
    population.start_task(0)
    population.advance(20)
    after = population.replica_state(0)
    moved = {
        name: float((after[name] - before[name]).norm()) for name in before if name.startswith("params/")
    }
    norms = [distance for name, distance in moved.items() if "norm" in name]
    held = {name for name in moved if f"initial/{name.removeprefix('params/')}" in before}
    assert held == {name for name in moved if "norm" not in name}
    assert len(norms) == 4
    assert min(norms) > 0
