"""With the same seed all agents see the same tasks and batches, and start from the same weights."""

import pytest
import torch
from torch.nn import functional as F

from continual import random
from continual.envs.environment import Source
from continual.envs.image_tasks import ImageTasks
from tests import tiny
from tests.contracts.every import every_agent, every_env, of_agent

POSITIONS = [(0, 0), (0, 19), (1, 5)]


def expected_losses(population, seed, position):
    """The loss of the initial weights on the batch that the environment has for a seed at a place."""
    env, learner = population.environment, population.learner
    task_number, step = position
    key = random.stream(random.key(seed), "environment")
    task = env.task(env.draw_stream(key), key, task_number)
    epoch, batch = divmod(step, env.epoch_steps(task_number))
    places = env.shuffle(key, task_number, epoch)[batch]
    params = learner.init(random.key(seed), {"agent": {}, "optimizer": {}})["params"]
    if not isinstance(env, ImageTasks):
        number = torch.tensor(env.first_step(task_number) + step)
        x, y = env.batch(Source((), task, places, key, number))
        return float(F.mse_loss(learner.forward(params, x)[0], y))
    places = places[places >= 0]
    x = env.dataset.x_train[task["rows"][places]].float()
    if "permutation" in task:
        x = x.flatten(1)[:, task["permutation"]].reshape(x.shape)
    logits, _ = learner.forward(params, x / 127.5 - 1)
    return float(F.cross_entropy(logits, task["labels"][places]))


@every_env
@pytest.mark.parametrize("position", POSITIONS)
def test_batches_are_those_that_the_seed_gives(compose, env, position):
    config = compose(f"env={env}")
    configs = [tiny.vary(config, r) for r in range(2)]
    population = tiny.population(configs)
    population.enter_task(*position)
    population.advance(1)
    sums = [loss * population.step_in_task for loss in population.online_loss()]
    expected = [expected_losses(population, c["seed"], position) for c in configs]
    assert sums == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


@every_agent
def test_every_agent_starts_with_the_weights_and_batches_of_base(compose, agent):
    base, other = compose(), compose(*of_agent(agent))
    weights = []
    for config in (base, other):
        state = tiny.population([config]).replica_state(0)
        weights.append({name: value for name, value in state.items() if name.startswith("params/")})
    shapes = [{name: value.shape for name, value in of.items()} for of in weights]

    if agent in ("layer_norm", "crelu", "normalize_and_project", "plasticity_injection"):  # other networks
        assert shapes[0] != shapes[1]
        # A bias is drawn by the inputs of its layer, so that its shape alone says nothing.
        layers = {n.rpartition(".")[0] for n, shape in shapes[0].items() if n.endswith("weight")}
        layers = {n for n in layers if shapes[0][f"{n}.weight"] == shapes[1][f"{n}.weight"]}
        shared = [name for name in weights[0] if name.rpartition(".")[0] in layers]
        assert bool(shared) == (agent != "crelu")
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in shared)
        return

    if agent == "soft_parameter_reset":  # even its first step begins elsewhere, but for this
        other = tiny.changed(other, "agent.drift_rate=0")
    assert shapes[0] == shapes[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for position in POSITIONS:
        losses = []
        for config in (base, other):
            population = tiny.population([config])
            population.enter_task(*position)
            population.advance(1)
            losses += population.online_loss()
        assert losses[0] == losses[1]


def test_another_network_sees_the_same_tasks(tmp_path, compose):
    """Labels are drawn for the images of a seed, whatever is trained on them."""
    first = []
    for width in (9, 30):
        population = tiny.population([compose(f"network.hidden_sizes=[{width},{width}]")])
        env = population.environment
        key = random.stream(random.key(0), "environment")
        first.append(env.task(env.draw_stream(key), key, 0))
    assert all(torch.equal(first[0][name], first[1][name]) for name in first[0])
