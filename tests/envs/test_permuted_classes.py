import torch

from continual import random
from continual.envs.permuted_classes import PermutedClasses

KEY = random.stream(random.key(0), "environment")


def env(dataset, **settings):
    common = {
        "num_tasks": 4,
        "steps_per_task": 6,
        "batch_size": 5,
        "samples_per_task": 40,
        "test_samples": 15,
    }
    return PermutedClasses(dataset=dataset, **common, **settings)


def tasks(env):
    drawn = env.draw_stream(KEY)
    return [env.task(drawn, KEY, number) for number in range(4)]


def names(dataset, task):
    """Which name each class has; every image of a class has the same one."""
    found = {}
    for rows, labels, y in (
        ("rows", "labels", dataset.y_train),
        ("test_rows", "test_labels", dataset.y_test),
    ):
        for row, label in zip(task[rows].tolist(), task[labels].tolist(), strict=True):
            assert found.setdefault(int(y[row]), label) == label
    return found


def test_every_task_permutes_the_classes_in_its_own_way(dataset):
    permutations = [names(dataset, task) for task in tasks(env(dataset))]
    assert all(sorted(p.values()) == sorted(p) == [0, 1, 2, 3, 4] for p in permutations)
    assert len({tuple(sorted(p.items())) for p in permutations}) > 1


def test_the_first_task_may_keep_the_names(dataset):
    first = tasks(env(dataset, permute_first=False))[0]
    assert names(dataset, first) == {k: k for k in range(5)}
    later = [tasks(env(dataset, permute_first=first))[1:] for first in (False, True)]
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(*later, strict=True))


def test_images_are_drawn_for_each_task_or_once(dataset):
    fresh, same = tasks(env(dataset)), tasks(env(dataset, resample_images=False))
    assert all(len(task["rows"].unique()) == 40 for task in fresh)
    assert not torch.equal(fresh[0]["rows"], fresh[1]["rows"])
    assert all(torch.equal(task["rows"], same[0]["rows"]) for task in same)
