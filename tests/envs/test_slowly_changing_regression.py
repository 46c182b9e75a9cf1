import itertools

import pytest
import torch

from continual import building, random
from continual.envs.environment import Source
from continual.envs.slowly_changing_regression import SlowlyChangingRegression
from tests import tiny

KEYS = [random.stream(random.key(seed), "environment") for seed in range(3)]


def env(**settings):
    return SlowlyChangingRegression(**{"num_tasks": 6, "steps_per_task": 40, "batch_size": 1, **settings})


def tasks(env, key):
    drawn = env.draw_stream(key)
    return [env.task(drawn, key, number) for number in range(env.num_tasks)]


def target(task, x, negatives, beta=0.7):
    """The target network, unit by unit, from the paper's text."""
    bits = len(x)
    total = float(task["c"])
    for w, b, v in zip(task["w"].tolist(), task["b"].tolist(), task["v"].tolist(), strict=True):
        assert {abs(number) for number in (*w, b, v)} == {1.0}
        if negatives == "all":
            s = sum(number < 0 for number in (*w, b))
        else:
            s = sum(number < 0 for number in w) + (1 if b > 0 else -1) / 2
        if sum(wi * xi for wi, xi in zip(w, x, strict=True)) + b > beta * (bits + 1) - s:
            total += v
    return total


@pytest.mark.parametrize("negatives", ["all", "released"])
def test_targets_are_those_of_the_papers_network(negatives):
    one = env(negatives=negatives, batch_size=3)
    for key in KEYS:
        for number, task in enumerate(tasks(one, key)[:2]):
            step = torch.tensor(40 * number + 5)
            x, y = one.batch(Source((), task, torch.zeros(3, dtype=torch.int64), key, step))
            assert x.shape == (3, 1, 1, 20)
            assert y.shape == (3, 1)
            for bits, number_ in zip(x.flatten(1).tolist(), y.flatten().tolist(), strict=True):
                assert number_ == pytest.approx(target(task, bits, negatives))


def test_slow_bits_stay_within_a_task_and_fast_ones_are_drawn_at_every_step():
    one = env()
    task = tasks(one, KEYS[0])[2]
    x, _ = one.training_examples(task, 2, KEYS[0])
    x = x.flatten(1)
    assert x.shape == (40, 20)
    assert torch.equal(x[:, :15], task["slow"].expand(40, 15))
    assert set(x[:, 15:].flatten().tolist()) == {0.0, 1.0}
    assert float(x[:, 15:].mean()) == pytest.approx(0.5, abs=0.1)
    assert len(x[:, 15:].unique(dim=0)) > 20
    place = torch.zeros(1, dtype=torch.int64)
    step, _ = one.batch(Source((), task, place, KEYS[0], torch.tensor(2 * 40 + 7)))
    assert torch.equal(step.flatten(), x[7]), "the examples are those of the steps"


@pytest.mark.parametrize("key", KEYS)
def test_one_slow_bit_flips(key):
    slow = [task["slow"] for task in tasks(env(), key)]
    changes = [(a != b).nonzero().flatten().tolist() for a, b in itertools.pairwise(slow)]
    assert all(len(places) == 1 for places in changes)
    assert len({place for (place,) in changes}) > 1


def test_or_all_are_drawn_anew():
    for key in KEYS:
        slow = torch.stack([task["slow"] for task in tasks(env(change="redraw_all", num_tasks=60), key)])
        assert float(slow.mean()) == pytest.approx(0.5, abs=0.06)
        changed = (slow[1:] != slow[:-1]).float().mean(0)
        assert changed.min() > 0.2
        assert changed.max() < 0.8


def test_the_target_network_never_changes_and_is_the_seeds_own():
    for name in ("w", "b", "v", "c", "cut"):
        values = [tasks(env(), key) for key in KEYS]
        assert all(torch.equal(task[name], values[0][0][name]) for task in values[0])
    assert not torch.equal(values[0][0]["w"], values[1][0]["w"])


def test_more_tasks_begin_like_fewer():
    for a, b in zip(tasks(env(), KEYS[0]), tasks(env(num_tasks=9), KEYS[0])[:6], strict=True):
        tiny.assert_equal(a, b)


def test_what_is_recorded_is_the_squared_error_before_each_update(tmp_path, compose):
    overrides = ("env=slowly_changing_regression", "optimizer=sgd", "optimizer.lr=1e-9", "env.batch_size=3")
    config = compose(*overrides)
    (run,) = tiny.train([config], tmp_path)
    learner, environment = building.prepare(config)
    key = KEYS[0]
    drawn = environment.draw_stream(key)
    params = learner.init(random.key(0), {"agent": {}, "optimizer": {}})["params"]
    for row in run.rows:
        task = environment.task(drawn, key, row["task"])
        x, y = environment.training_examples(task, row["task"], key)
        error = float(((learner.forward(params, x)[0] - y) ** 2).mean())
        assert row["online_squared_error"] == pytest.approx(error, rel=1e-4)
        x, y = environment.test_examples(task, row["task"], key)
        error = float(((learner.forward(params, x)[0] - y) ** 2).mean())
        assert row["test_squared_error"] == pytest.approx(error, rel=1e-4)
        assert not any("accuracy" in name for name in row)
    assert run.summary["score_name"] == "total_average_online_squared_error"
    assert run.summary["higher_is_better"] is False
    assert run.summary["score"] == pytest.approx(
        sum(row["online_squared_error"] for row in run.rows) / 2, rel=1e-8
    )
    assert "total_average_online_accuracy" not in run.summary
