import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from continual import random
from continual.envs.random_labels import RandomLabels

KEYS = torch.stack([random.key(seed) for seed in (0, 1, 2)])


@pytest.fixture
def env(dataset):
    return RandomLabels(dataset=dataset, num_tasks=4, steps_per_task=9, batch_size=7, samples_per_task=40)


def tasks(env, key, numbers=range(4)):
    drawn = env.draw_stream(key)
    return [env.task(drawn, key, number) for number in numbers]


def test_all_tasks_have_the_same_images_of_one_seed(env):
    rows = [task["rows"] for task in tasks(env, KEYS[0])]
    assert all(torch.equal(rows[0], other) for other in rows)
    assert len(set(rows[0].tolist())) == 40
    assert set(rows[0].tolist()) <= set(range(60))
    assert set(tasks(env, KEYS[1])[0]["rows"].tolist()) != set(rows[0].tolist())


@pytest.mark.parametrize("mode", ["uniform", "permuted"])
def test_every_task_has_labels_of_its_own(env, mode):
    env = dataclasses.replace(env, labels=mode)
    labels = [tuple(task["labels"].tolist()) for key in KEYS for task in tasks(env, key)]
    assert len(set(labels)) == len(labels)


def test_permuted_labels_are_the_true_ones_in_another_order(env):
    env = dataclasses.replace(env, labels="permuted")
    for task in tasks(env, KEYS[0]):
        true = env.dataset.y_train[task["rows"]]
        assert torch.equal(task["labels"].sort().values, true.sort().values)
        assert not torch.equal(task["labels"], true)


@pytest.mark.parametrize("mode", ["uniform", "permuted"])
def test_labels_say_nothing_of_the_images(env, mode):
    # With all images in every task, each class is as frequent in one replica as in another.
    env = dataclasses.replace(env, labels=mode, samples_per_task=60)
    keys = vmap(lambda counter: random.fold(KEYS[0], counter))(torch.arange(1000))
    task = vmap(lambda key: env.task(env.draw_stream(key), key, 2))(keys)
    true, given = env.dataset.y_train[task["rows"]].flatten(), task["labels"].flatten()
    together = np.histogram2d(true.numpy(), given.numpy(), bins=5)[0]
    assert stats.chi2_contingency(together).pvalue > 1e-3
    assert stats.chisquare(np.bincount(given.numpy(), minlength=5)).pvalue > 1e-3
    # What an image is called in one task says nothing of what it is called in the next.
    following = vmap(lambda key: env.task(env.draw_stream(key), key, 3))(keys)["labels"].flatten()
    assert stats.chi2_contingency(np.histogram2d(given, following, bins=5)[0]).pvalue > 1e-3


def test_uniform_labels_vary_in_number_and_permuted_ones_do_not(env):
    def counts(mode):
        found = tasks(dataclasses.replace(env, labels=mode), KEYS[0])
        return {tuple(task["labels"].bincount(minlength=5).tolist()) for task in found}

    assert len(counts("uniform")) > 1
    assert len(counts("permuted")) == 1


@pytest.mark.parametrize("mode", ["uniform", "permuted"])
def test_a_task_is_a_function_of_the_key_and_its_number(env, mode):
    env = dataclasses.replace(env, labels=mode)
    in_order = tasks(env, KEYS[2])
    together = vmap(lambda key: env.task(env.draw_stream(key), key, 3))(KEYS)
    (alone,) = tasks(env, KEYS[2], [3])
    for name in ("rows", "labels"):
        assert torch.equal(alone[name], in_order[3][name])
        assert torch.equal(together[name][2], in_order[3][name])


def test_it_is_tested_on_its_training_images_as_they_are(env):
    (task,) = tasks(env, KEYS[0], [1])
    assert set(task) == {"rows", "labels"}
