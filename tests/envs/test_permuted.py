import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from continual import random
from continual.envs.image_tasks import images
from continual.envs.permuted import PermutedImages
from continual.errors import ConfigError

PIXELS = 20
KEYS = torch.stack([random.key(seed) for seed in (0, 1, 2)])


@pytest.fixture
def env(dataset):
    return PermutedImages(
        dataset=dataset, num_tasks=4, steps_per_task=9, batch_size=7, samples_per_task=40, test_samples=15
    )


def tasks(env, key, numbers=range(4)):
    drawn = env.draw_stream(key)
    return [env.task(drawn, key, number) for number in numbers]


def test_every_permutation_has_each_pixel_once_and_is_another_one(env):
    for key in KEYS:
        permutations = [task["permutation"] for task in tasks(env, key)]
        for permutation in permutations:
            assert torch.equal(permutation.sort().values, torch.arange(PIXELS))
        assert len({tuple(p.tolist()) for p in permutations}) == 4


@pytest.mark.parametrize("permute_first", [False, True])
def test_the_first_task_is_permuted_only_if_asked_for(env, permute_first):
    env = dataclasses.replace(env, permute_first=permute_first)
    for key in KEYS:
        first = tasks(env, key)[0]["permutation"]
        assert torch.equal(first, torch.arange(PIXELS)) != permute_first


def test_permuting_the_first_task_changes_no_other(env):
    with_first = tasks(dataclasses.replace(env, permute_first=True), KEYS[0])
    for one, other in zip(tasks(env, KEYS[0])[1:], with_first[1:], strict=True):
        assert torch.equal(one["permutation"], other["permutation"])


def test_every_pixel_is_equally_likely_at_every_place(env):
    keys = vmap(lambda counter: random.fold(KEYS[0], counter))(torch.arange(2000))
    permutations = vmap(lambda key: env.task(env.draw_stream(key), key, 1)["permutation"])(keys).numpy()
    for place in (0, 7, PIXELS - 1):
        assert stats.chisquare(np.bincount(permutations[:, place], minlength=PIXELS)).pvalue > 1e-3


@pytest.mark.parametrize("resample", [False, True])
def test_the_images_are_one_subset_or_a_fresh_one_for_each_task(env, resample):
    env = dataclasses.replace(env, resample_images=resample)
    subsets = [set(task["rows"].tolist()) for task in tasks(env, KEYS[0])]
    assert all(len(subset) == 40 for subset in subsets)
    assert all(subset <= set(range(60)) for subset in subsets)
    assert len(set(map(frozenset, subsets))) == (4 if resample else 1)
    other = {*tasks(env, KEYS[1])[0]["rows"].tolist()}
    assert other != subsets[0], "another seed draws another subset"


@pytest.mark.parametrize("resample", [False, True])
def test_labels_stay_with_their_images(env, resample):
    env = dataclasses.replace(env, resample_images=resample)
    for task in tasks(env, KEYS[1]):
        assert torch.equal(task["labels"], env.dataset.y_train[task["rows"]])
        assert torch.equal(task["test_labels"], env.dataset.y_test[task["test_rows"]])
        assert len(set(task["test_rows"].tolist())) == 15


def test_more_test_samples_than_there_are_means_all(env):
    (task,) = tasks(dataclasses.replace(env, test_samples=1000), KEYS[0], [0])
    assert torch.equal(task["test_rows"].sort().values, torch.arange(20))


def test_a_task_is_a_function_of_the_key_and_its_number(env):
    in_order = tasks(env, KEYS[2])
    for number in (3, 1):
        (alone,) = tasks(env, KEYS[2], [number])
        for name, tensor in alone.items():
            assert torch.equal(tensor, in_order[number][name]), name


def test_tasks_of_many_replicas_are_those_of_each(env):
    together = vmap(lambda key: env.task(env.draw_stream(key), key, 2))(KEYS)
    for i, key in enumerate(KEYS):
        for name, tensor in tasks(env, key, [2])[0].items():
            assert torch.equal(together[name][i], tensor), name


def test_training_and_test_images_are_permuted_alike(env):
    dataset = env.dataset
    scale, shift = (torch.tensor(values).reshape(-1, 1, 1) for values in (dataset.scale, dataset.shift))
    permutation = tasks(env, KEYS[0])[1]["permutation"]
    for pixels in (dataset.x_train, dataset.x_test):
        rows = torch.tensor([5, 0, 5])
        seen = images(pixels, scale, shift, rows, permutation)
        plain = images(pixels, scale, shift, rows, None)
        torch.testing.assert_close(plain, pixels[rows] / 128 - 1)
        assert seen.shape == plain.shape == (3, 1, 4, 5)
        assert torch.equal(seen.reshape(3, -1), plain.reshape(3, -1)[:, permutation])


def test_channels_keep_their_own_scale_wherever_their_pixels_go(rgb_dataset):
    pixels = rgb_dataset.x_train
    scale = torch.tensor([1.0, 0.1, 0.01]).reshape(-1, 1, 1)
    shift = torch.tensor([0.0, -1.0, 5.0]).reshape(-1, 1, 1)
    permutation = random.permutation(KEYS[0], 3 * 8 * 8)
    rows = torch.arange(4)
    expected = (pixels[rows] * scale + shift).flatten(1)[:, permutation].reshape(4, 3, 8, 8)
    torch.testing.assert_close(images(pixels, scale, shift, rows, permutation), expected)


@pytest.mark.parametrize(("size", "batch"), [(40, 7), (40, 8), (40, 40), (3, 1)])
def test_every_epoch_visits_every_full_batch_of_a_fresh_shuffle(env, size, batch):
    env = dataclasses.replace(env, samples_per_task=size, batch_size=batch)
    epochs = [env.shuffle(KEYS[0], task, epoch) for task in (0, 1) for epoch in (0, 1)]
    for places in epochs:
        assert places.shape == (size // batch, batch)
        assert len(set(places.flatten().tolist())) == places.numel(), "no image twice in an epoch"
        assert set(places.flatten().tolist()) <= set(range(size))
    if size > 3:
        assert len({tuple(places.flatten().tolist()) for places in epochs}) == 4
    assert torch.equal(env.shuffle(KEYS[0], 1, 1), epochs[3])


def test_the_images_that_an_epoch_leaves_out_change(env):
    counts = torch.zeros(40)
    for epoch in range(400):
        counts[env.shuffle(KEYS[0], 0, epoch).flatten()] += 1
    expected = 400 * 35 / 40
    assert counts.sum() == 400 * 35
    assert (counts - expected).abs().max() < 5 * (400 * 35 / 40 * 5 / 40) ** 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples_per_task": 61}, r"^env\.samples_per_task: 61 .*60 training images; at most 60"),
        ({"batch_size": 41}, r"^env\.batch_size: 41 .*40 images .*at most 40"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(env, settings, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(env, **settings)


def test_all_tasks_are_scored_and_of_one_kind(env):
    assert all(env.is_scored(task) and env.task_type(task) == "" for task in range(4))
    assert env.task_size(3) == 40
    assert env.num_classes == 5
