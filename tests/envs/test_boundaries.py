"""What an environment does to every agent at a task's start, and what it declares."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from continual.agents.base import Base
from continual.errors import ConfigError
from continual.learner import Learner
from continual.losses import CrossEntropy, SquaredError
from continual.networks.mlp import MLP
from continual.optimizers import SGD
from tests import tiny

STEPS = 20


def population(compose, *overrides):
    return tiny.population([compose("env=random_label_mnist", *overrides), compose("seed=1", *overrides)])


def advance(population, task, steps=STEPS):
    population.start_task(task)
    population.advance(steps)


@pytest.mark.parametrize("output_layer", ["zero", "redraw"])
def test_the_output_layer_is_reset_at_every_tasks_start_and_nothing_else(compose, output_layer):
    trained = population(
        compose, f"env.output_layer={output_layer}", "optimizer=sgd", "optimizer.momentum=0.9"
    )
    drawn = []
    for task in (0, 1, 2):
        before = [trained.replica_state(r) for r in range(2)]
        trained.start_task(task)
        after = [trained.replica_state(r) for r in range(2)]
        for was, now in zip(before, after, strict=True):
            changed = {name for name in was if not torch.equal(was[name], now[name])}
            assert changed - {"online/measure", "online/loss"} == {
                "params/output.weight",
                "params/output.bias",
            }
            if output_layer == "zero":
                assert not now["params/output.weight"].any()
        drawn += [now["params/output.weight"] for now in after]
        trained.advance(STEPS)
    if output_layer == "redraw":
        bound = 1 / 3  # of nine units
        assert all(0.9 * bound < weight.abs().max() <= bound for weight in drawn)
        assert len({weight.flatten()[0].item() for weight in drawn}) == 6, "each replica and task has its own"


@pytest.mark.parametrize("agent", ["head_reset", "full_reset", "shrink_and_perturb"])
def test_what_an_agent_does_at_a_tasks_start_is_no_exception(compose, agent):
    every = ["agent.every=task"] if agent == "shrink_and_perturb" else []
    reset = population(compose, f"agent={agent}", *every, "env.output_layer=zero")
    for task in range(2):
        reset.start_task(task)
        state = reset.replica_state(0)
        assert not state["params/output.weight"].any()
        assert state["params/hidden0.weight"].any()
        reset.advance(STEPS)
        reset.end_task()


def test_the_optimisers_state_is_renewed_with_all_that_it_counts(compose):
    renewed = population(compose, "env.optimizer_state=renew")
    fresh = renewed.replica_state(0)
    advance(renewed, 0)
    used = renewed.replica_state(0)
    renewed.start_task(1)
    now = renewed.replica_state(0)
    names = [name for name in now if name.startswith("optimizer/")]
    assert len(names) > 3
    for name in names:
        assert torch.equal(now[name], fresh[name]), name
    assert all(not torch.equal(used[name], fresh[name]) for name in names)
    assert not torch.equal(now["params/hidden0.weight"], fresh["params/hidden0.weight"])


def test_a_resume_within_a_task_resets_nothing(compose):
    trained = population(compose, "env.output_layer=zero", "env.optimizer_state=renew")
    advance(trained, 0)
    advance(trained, 1, 7)
    before = trained.replica_state(0)
    trained.enter_task(1, 7)
    tiny.assert_equal(trained.replica_state(0), before)


def test_targets_of_the_wrong_kind_are_one_sentence():
    with pytest.raises(ConfigError, match=r"^env: cross-entropy needs classes .* float32 \[2, 1\]"):
        CrossEntropy().check_targets(torch.zeros(2, 1))
    with pytest.raises(ConfigError, match=r"^env: squared error needs numbers .* int64 \[2\]"):
        SquaredError().check_targets(torch.zeros(2, dtype=torch.int64))


def test_losses():
    outputs, y = torch.randn(6, 3), torch.randn(6, 3)
    squared = SquaredError()
    torch.testing.assert_close(squared.per_example(outputs, y).mean(), F.mse_loss(outputs, y))
    torch.testing.assert_close(squared.mean_measure(outputs, y).float(), F.mse_loss(outputs, y))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    crossed = CrossEntropy()
    torch.testing.assert_close(crossed.per_example(outputs, labels).mean(), F.cross_entropy(outputs, labels))
    assert crossed.mean_measure(outputs, labels) == (outputs.argmax(1) == labels).double().mean()
    outputs[0, 0] = torch.nan
    assert crossed.mean_measure(outputs, labels).isnan()


def test_a_partial_batch_is_the_mean_over_the_examples_that_it_has():
    learner = Learner.of(MLP((1, 2, 3), 4, [5]), Base(), SGD(lr=0.5))
    learner = replace(learner, measures_plasticity=True)
    numbers = {"agent": {}, "optimizer": {}}
    state = learner.init(torch.tensor([1, 2], dtype=torch.int32), numbers)
    x, y = torch.randn(5, 1, 2, 3), torch.tensor([0, 1, 2, 3, 0])
    key, step = torch.tensor([3, 4], dtype=torch.int32), torch.tensor(0)
    short = learner.step(state, numbers, x, y, key, step)
    places = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    is_real = torch.arange(8) < 5
    padded = learner.step(state, numbers, x[places], y[places], key, step, is_real)
    torch.testing.assert_close(padded["params"], short["params"])
    torch.testing.assert_close(padded["online"], short["online"])


def test_a_run_without_a_score(tmp_path, compose):
    (run,) = tiny.train([compose("env.score=null")], tmp_path)
    assert (run.summary["score"], run.summary["score_name"], run.summary["higher_is_better"]) == (None,) * 3
    assert run.summary["total_average_online_accuracy"] > 0
