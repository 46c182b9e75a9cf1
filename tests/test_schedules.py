"""Step sizes that change, and gradients of at most some norm, against plain loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from continual import building, random
from continual.errors import ConfigError
from continual.networks.mlp import MLP
from continual.optimizers.clipping import clipped
from continual.optimizers.schedules import Cosine, InverseTime, Milestones, WarmUp
from tests import tiny

STEPS = 20  # of a task


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WarmUp(steps=4), lambda t: min(1, (t + 1) / 4)),
        (Milestones(steps=[3, 7], gamma=0.2), lambda t: 0.2 ** ((t >= 3) + (t >= 7))),
        (Cosine(steps=8), lambda t: (1 + math.cos(math.pi * min(t, 8) / 8)) / 2),
        (InverseTime(rate=0.5), lambda t: 1 / (1 + 0.5 * t)),
    ],
)
def test_factors(schedule, expected):
    found = [float(schedule.factor(torch.tensor(t))) for t in range(12)]
    assert found == pytest.approx([expected(t) for t in range(12)], abs=1e-6)


def test_clipping_is_torchs_own():
    grads = {"a": torch.randn(4, 3), "b": torch.randn(5)}
    for most in (0.5, 100.0):
        params = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in grads.values()]
        for param, grad in zip(params, grads.values(), strict=True):
            param.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_(params, most)
        for ours, theirs in zip(clipped(grads, most).values(), params, strict=True):
            torch.testing.assert_close(ours, theirs.grad)


def plain_loop(config, factor):
    """The parameters after two tasks of SGD with these step sizes, and gradients cut to the config's norm."""
    learner, environment = building.prepare(config)
    key, seed = random.stream(random.key(0), "environment"), random.key(config["seed"])
    network = MLP(environment.input_shape, environment.num_classes, config["network"]["hidden_sizes"])
    start = learner.init(seed, {"agent": {}, "optimizer": {}})["params"]
    network.load_state_dict(start)
    drawn = environment.draw_stream(key)
    for number in range(2):
        task = environment.task(drawn, key, number)
        batches = [b for epoch in range(4) for b in environment.shuffle(key, number, epoch)][:STEPS]
        for t, places in enumerate(batches):
            x, y = environment.training_examples(task, number, key, places)
            loss = F.cross_entropy(network(x)[0], y)
            network.zero_grad()
            loss.backward()
            most = config["optimizer"]["clip_norm"] or math.inf
            torch.nn.utils.clip_grad_norm_(network.parameters(), most)
            with torch.no_grad():
                for param in network.parameters():
                    param -= config["optimizer"]["lr"] * factor(number, t) * param.grad
    return dict(network.named_parameters())


@pytest.mark.parametrize(
    ("overrides", "factor"),
    [
        (
            ["optimizer/schedule=cosine", "optimizer.schedule.steps=20"],
            lambda task, t: (1 + math.cos(math.pi * t / 20)) / 2,
        ),
        (
            ["optimizer/schedule=warm_up", "optimizer.schedule.steps=30", "optimizer.schedule.over=run"],
            lambda task, t: min(1, (20 * task + t + 1) / 30),
        ),
        (["optimizer.clip_norm=0.3"], lambda task, t: 1.0),
    ],
    ids=["within a task", "over the run", "clipped"],
)
def test_a_run_is_that_of_a_plain_loop(tmp_path, compose, overrides, factor):
    config = compose("optimizer=sgd", "optimizer.lr=0.2", "env=permuted_mnist", *overrides)
    (run,) = tiny.train([config], tmp_path)
    expected = plain_loop(config, factor)
    for name, value in expected.items():
        torch.testing.assert_close(run.state[f"params/{name}"], value.detach(), atol=2e-5, rtol=2e-4)
    plain = tiny.train(
        [compose("optimizer=sgd", "optimizer.lr=0.2", "env=permuted_mnist")], tmp_path / "plain"
    )
    assert not torch.equal(plain[0].state["params/output.bias"], run.state["params/output.bias"])


def test_a_schedule_changes_every_step_size_of_an_optimizer(compose):
    """Muon has one for hidden matrices and one for all else."""
    schedule = ("optimizer/schedule=cosine", "optimizer.schedule.steps=10")
    population = tiny.population([compose("optimizer=muon", "env.steps_per_task=20", *schedule)])
    population.start_task(0)
    states = []
    for _ in range(3):
        states.append(population.replica_state(0))
        population.advance(10)
    for name in states[0]:
        if name.startswith("params/"):
            assert not torch.equal(states[0][name], states[1][name])
            assert torch.equal(states[1][name], states[2][name])


def test_replicas_may_differ_in_their_numbers(tmp_path, compose):
    config = compose("optimizer/schedule=cosine", "optimizer.clip_norm=0.3", "optimizer.schedule.steps=20")
    configs = [tiny.vary(config, r) for r in range(3)]
    for r, each in enumerate(configs):
        each["optimizer"]["schedule"] = {**each["optimizer"]["schedule"], "steps": 10 + 5 * r}
    packed = tiny.train(configs, tmp_path / "packed")
    (alone,) = tiny.train([configs[1]], tmp_path / "alone")
    tiny.assert_equal(alone.state, packed[1].state)
    assert len({run.tasks for run in packed}) == 3


@pytest.mark.parametrize("over", ["task", "run"])
@pytest.mark.parametrize("schedule", tiny.options("optimizer/schedule"))
def test_every_schedule_goes_on_where_it_was(tmp_path, compose, schedule, over):
    chosen = [f"optimizer/schedule={schedule}", f"optimizer.schedule.over={over}", "engine.chunk_steps=7"]
    config = compose("agent=l2_init", *chosen)
    if "steps" in config["optimizer"]["schedule"]:
        steps = config["optimizer"]["schedule"]["steps"]
        config["optimizer"]["schedule"]["steps"] = [5, 15] if isinstance(steps, list) else 20
    (whole,) = tiny.train([config], tmp_path / "whole")
    for _ in range(2):
        tiny.train_until(2, [config], tmp_path / "stopped")
    (resumed,) = tiny.train([config], tmp_path / "stopped")
    tiny.assert_equal(resumed.state, whole.state)
    assert resumed.tasks == whole.tasks


def test_a_schedule_that_is_longer_than_the_run(compose):
    with pytest.raises(ConfigError, match=r"^optimizer\.schedule\.steps: 21 is more than the 20 steps of a"):
        building.prepare(compose("optimizer/schedule=cosine", "optimizer.schedule.steps=21"))
    over_run = ("optimizer/schedule=warm_up", "optimizer.schedule.over=run")
    building.prepare(compose(*over_run, "optimizer.schedule.steps=40"))
    with pytest.raises(ConfigError, match=r"^optimizer\.schedule\.steps: 41 is more than the 40 steps of a"):
        building.prepare(compose(*over_run, "optimizer.schedule.steps=41"))
