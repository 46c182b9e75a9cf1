import pytest
import torch
from torch.nn import functional as F

from continual import measuring, population, random
from continual.envs.permuted import PermutedImages
from tests import tiny


@pytest.fixture
def configs(compose):
    config = compose("agent=l2_init", "env=permuted_mnist")
    return [tiny.vary(config, r) for r in range(3)]


def run(population, steps=20, task=0):
    population.start_task(task)
    while population.step_in_task < steps:
        population.advance(min(population.chunk_steps, steps - population.step_in_task))
    return population


def test_replicas_start_with_weights_and_tasks_of_their_seeds(configs):
    states = [tiny.population(configs).replica_state(r) for r in range(3)]
    for name, value in states[0].items():
        if name.startswith("params/"):
            assert not torch.equal(value, states[1][name])
    first = {**configs[0], "optimizer": {**configs[0]["optimizer"], "lr": 1.0}}
    tiny.assert_equal(states[0], tiny.population([first]).replica_state(0))


def test_online_sums_start_at_zero_with_every_task(configs):
    trained = run(tiny.population(configs), 20)
    assert all(0 < accuracy < 1 for accuracy in trained.online_measure())
    assert all(0.5 < loss < 3 for loss in trained.online_loss())
    trained.start_task(1)
    trained.advance(1)
    accuracies = [accuracy * 7 for accuracy in trained.online_measure()]
    assert accuracies == pytest.approx([round(a) for a in accuracies]), "of the one batch so far"
    assert trained.diverged_at() == [0, 0, 0]


def test_measures_are_those_of_the_network_on_its_own_test_images(configs):
    trained = run(tiny.population(configs), task=1)
    measured = measuring.at_task_end(trained)
    assert all(values.shape == (3,) for values in measured.values())
    learner, env = trained.learner, trained.environment
    assert isinstance(env, PermutedImages)
    for r, config in enumerate(configs):
        key = random.stream(random.key(config["seed"]), "environment")
        task = env.task(env.draw_stream(key), key, 1)
        images = env.dataset.x_test[task["test_rows"]].float().flatten(1)[:, task["permutation"]]
        state = trained.replica_state(r)
        params = {n.removeprefix("params/"): v for n, v in state.items() if n.startswith("params/")}
        logits, features = learner.forward(params, images / 127.5 - 1)
        accuracy = float((logits.argmax(1) == task["test_labels"]).float().mean())
        assert measured["test_accuracy"][r] == pytest.approx(accuracy)
        dead = [float((h == 0).all(0).float().mean()) for h in features.values()]
        assert measured["dead_unit_fraction"][r] == pytest.approx(sum(dead) / 2)
        distance = sum(float((v - state[f"initial/{n}"]).double().pow(2).sum()) for n, v in params.items())
        assert measured["distance_from_init"][r] == pytest.approx(distance**0.5, rel=1e-6)


def test_any_task_can_be_tested_at_any_time(configs):
    trained = run(tiny.population(configs), task=1)
    assert torch.equal(measuring.test_measure(trained, 1), measuring.at_task_end(trained)["test_accuracy"])
    before = trained.replica_state(0)
    accuracies = torch.stack([measuring.test_measure(trained, task) for task in (0, 2, 3)])
    assert len(accuracies.unique(dim=0)) == 3
    assert trained.task == 1
    tiny.assert_equal(trained.replica_state(0), before)


def test_gradients_are_those_of_the_mean_loss_on_the_training_images(configs):
    trained = run(tiny.population(configs[:1]))
    env, learner = trained.environment, trained.learner
    key = random.stream(random.key(configs[0]["seed"]), "environment")
    task = env.task(env.draw_stream(key), key, 0)
    params = {
        name.removeprefix("params/"): value.clone().requires_grad_()
        for name, value in trained.replica_state(0).items()
        if name.startswith("params/")
    }
    x = env.dataset.x_train[task["rows"]].float() / 127.5 - 1
    F.cross_entropy(learner.forward(params, x)[0], task["labels"]).backward()
    grads = torch.cat([p.grad.flatten() for p in params.values()])
    measured = measuring.gradients(trained)
    assert float(measured["gradient_norm"][0]) == pytest.approx(float(grads.norm()), rel=1e-5)
    zeros = float((grads == 0).float().mean())
    assert float(measured["zero_gradient_fraction"][0]) == pytest.approx(zeros)


def test_a_state_that_is_put_back_goes_on_as_before(configs):
    whole, first_half = tiny.population(configs), run(tiny.population(configs), 8)
    run(whole, 20)
    # Into another place of another population, which was somewhere else before.
    other = run(tiny.population([configs[2], configs[0]]), 5, task=1)
    other.restore(1, first_half.replica_state(0))
    other.restore(0, first_half.replica_state(2))
    other.enter_task(0, 8)
    other.advance(12)
    tiny.assert_equal(other.replica_state(1), whole.replica_state(0))
    tiny.assert_equal(other.replica_state(0), whole.replica_state(2))


def test_a_replicas_state_is_a_copy(configs):
    trained = tiny.population(configs)
    before = trained.replica_state(0)
    copy = {name: value.clone() for name, value in before.items()}
    run(trained)
    tiny.assert_equal(before, copy)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_state_of_another_structure_is_refused(configs, damage):
    trained = tiny.population(configs)
    state = trained.replica_state(0)
    if damage == "missing":
        del state["params/output.bias"]
    else:
        state["params/output.bias"] = torch.zeros(6)
    with pytest.raises((KeyError, RuntimeError)):
        trained.restore(0, state)


def test_the_images_are_not_copied_for_each_replica(configs):
    many = tiny.population(configs)
    images = many.environment.dataset.x_train
    assert images.dtype == torch.uint8
    assert images.shape == (60, 1, 4, 5)


def test_replicas_measured_in_groups_give_the_same_measures(configs, monkeypatch):
    trained = run(tiny.population(configs))
    together = measuring.at_task_end(trained)
    monkeypatch.setattr(population, "_WORKING_BYTES_ON_CPU", 1)
    for name, values in measuring.at_task_end(trained).items():
        assert torch.equal(values, together[name]), name
