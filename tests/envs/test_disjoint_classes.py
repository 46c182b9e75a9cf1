"""Environments whose tasks have classes of their own: NewClasses and EasyHard."""

import dataclasses

import pytest
import torch
from scipy import stats
from torch.func import vmap

from continual import building, measuring, metrics, random
from continual.datasets.dataset import Dataset
from continual.envs.easy_hard import EasyHard
from continual.envs.new_classes import NewClasses
from continual.errors import ConfigError
from tests import tiny
from tests.datasets.writers import write_npz

KEYS = torch.stack([random.key(seed) for seed in (0, 1, 2)])
CLASSES, TRAIN, TEST = 12, 7, 4


@pytest.fixture(scope="module")
def data():
    """Images with labels in a mixed order, and two classes with more images than the others."""
    generator = torch.Generator().manual_seed(0)

    def labels(per_class, more):
        y = torch.cat([torch.arange(CLASSES).repeat(per_class), torch.tensor([3] * more + [8] * more * 2)])
        return y[torch.randperm(len(y), generator=generator)]

    y_train, y_test = labels(TRAIN, 5), labels(TEST, 2)
    x_train, x_test = (
        torch.randint(0, 256, (len(y), 1, 4, 5), dtype=torch.uint8, generator=generator)
        for y in (y_train, y_test)
    )
    return Dataset(x_train, y_train, x_test, y_test, CLASSES, scale=(1 / 255,), shift=(0.0,))


@pytest.fixture(params=["new_classes", "easy_hard"])
def env(request, data):
    common = {
        "dataset": data,
        "num_tasks": 4,
        "steps_per_task": 9,
        "batch_size": 5,
        "samples_per_class": 6,
        "test_samples_per_class": 3,
    }
    if request.param == "new_classes":
        return NewClasses(**common, classes_per_task=3)
    return EasyHard(**common, hard_classes=4, easy_classes=1)


def tasks(env, key):
    drawn = env.draw_stream(key)
    return [env.task(drawn, key, number) for number in range(env.num_tasks)]


@pytest.mark.parametrize("key", KEYS)
def test_a_class_never_occurs_in_two_tasks(env, key):
    seen = []
    for number, task in enumerate(tasks(env, key)):
        classes = env.dataset.y_train[task["rows"][: env.task_size(number)]].unique().tolist()
        tested = env.dataset.y_test[task["test_rows"][: env.test_size(number)]].unique().tolist()
        assert classes == tested
        assert len(classes) == env.classes_of(number)
        seen += classes
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("key", KEYS)
def test_as_many_different_images_of_each_class(env, key):
    for number, task in enumerate(tasks(env, key)):
        for rows, y, size, each in (
            (task["rows"], env.dataset.y_train, env.task_size(number), env.samples_per_class),
            (task["test_rows"], env.dataset.y_test, env.test_size(number), env.test_samples_per_class),
        ):
            used = rows[:size]
            assert size == env.classes_of(number) * each
            assert len(used.unique()) == size
            assert set(y[used].bincount().tolist()) <= {0, each}


@pytest.mark.parametrize("key", KEYS)
def test_labels(env, key):
    names = {}
    for number, task in enumerate(tasks(env, key)):
        for rows, labels, y, size in (
            (task["rows"], task["labels"], env.dataset.y_train, env.task_size(number)),
            (task["test_rows"], task["test_labels"], env.dataset.y_test, env.test_size(number)),
        ):
            labels, true = labels[:size], y[rows[:size]]
            if isinstance(env, EasyHard):
                assert torch.equal(labels, true)
            else:
                pairs = set(zip(true.tolist(), labels.tolist(), strict=True))
                assert sorted(label for _, label in pairs) == [0, 1, 2]
                assert pairs == names.setdefault(number, pairs)  # of test images as of training images


def test_outputs(env):
    assert env.num_classes == (CLASSES if isinstance(env, EasyHard) else 3)


def test_tasks_are_padded_to_one_shape_and_batches_keep_off_the_padding(env):
    shapes = {tuple((name, t.shape) for name, t in task.items()) for task in tasks(env, KEYS[0])}
    assert len(shapes) == 1
    for number in range(env.num_tasks):
        size = env.task_size(number)
        epochs = [env.shuffle(KEYS[0], number, epoch) for epoch in range(6)]
        assert all(places.shape == (size // 5, 5) for places in epochs)
        assert {place for places in epochs for place in places.flatten().tolist()} == set(range(size))
        for places in epochs:
            assert len(places.unique()) == places.numel()


def test_replicas_alone_and_among_others_draw_the_same(env):
    drawn = vmap(env.draw_stream)(KEYS)
    for number in range(env.num_tasks):
        together = vmap(lambda drawn, key, number=number: env.task(drawn, key, number))(drawn, KEYS)
        for replica, key in enumerate(KEYS):
            alone = env.task(env.draw_stream(key), key, number)
            assert all(torch.equal(together[name][replica], alone[name]) for name in alone)
        assert len({tuple(rows.tolist()) for rows in together["rows"]}) == len(KEYS)


def test_classes_come_in_any_order_and_all_images_are_used(data):
    """Over many seeds, each class is as often in the first task, and each of its images as often drawn."""
    env = NewClasses(
        dataset=data,
        num_tasks=2,
        steps_per_task=9,
        batch_size=5,
        samples_per_class=3,
        test_samples_per_class=2,
        classes_per_task=2,
    )
    keys = torch.stack([random.key(seed) for seed in range(3000)])
    drawn = vmap(env.draw_stream)(keys)
    task = vmap(lambda drawn, key: env.task(drawn, key, 0))(drawn, keys)
    classes = data.y_train[task["rows"]][:, ::3]
    assert stats.chisquare(classes.flatten().bincount(minlength=CLASSES)).pvalue > 1e-3
    assert stats.chisquare(classes[:, 0].bincount(minlength=CLASSES)).pvalue > 1e-3
    for k in range(CLASSES):
        own = (data.y_train == k).nonzero().flatten()
        drawn_rows = task["rows"].flatten().bincount(minlength=len(data.y_train))[own]
        assert stats.chisquare(drawn_rows).pvalue > 1e-4, k


def test_hard_and_easy_tasks(data):
    env = EasyHard(
        dataset=data,
        num_tasks=5,
        steps_per_task=9,
        batch_size=5,
        samples_per_class=6,
        test_samples_per_class=3,
        hard_classes=3,
        easy_classes=1,
    )
    assert [env.task_type(task) for task in range(5)] == ["hard", "easy", "hard", "easy", "hard"]
    assert [env.is_scored(task) for task in range(5)] == [True, False, True, False, True]
    assert [env.task_size(task) for task in range(5)] == [18, 6, 18, 6, 18]
    assert [env.test_size(task) for task in range(5)] == [9, 3, 9, 3, 9]


NEW = "env=continual_imagenet"
HARD = "env=easy_hard_cifar100"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([NEW, "env.num_tasks=7"], r"env\.num_tasks: 7 tasks .* than the dataset's 12; at most 6 tasks .*"),
        ([NEW, "env.classes_per_task=5"], r"env\.num_tasks: 3 tasks .* 12; at most 2 tasks are possible\."),
        ([HARD, "env.num_tasks=5"], r"env\.num_tasks: 5 tasks .* 12; at most 4 tasks are possible\."),
        (
            [NEW, "env.samples_per_class=8"],
            r"env\.samples_per_class: 8 .* the 7 training images of class 0 .*; at most 7 is possible\.",
        ),
        (
            [HARD, "env.test_samples_per_class=5"],
            r"env\.test_samples_per_class: 5 .* the 4 test images of class 0 .*; at most 4 is possible\.",
        ),
        ([NEW, "env.batch_size=13"], r"env\.batch_size: 13 .* the 12 images of a task .*; at most 12 .*"),
        ([HARD, "env.batch_size=7"], r"env\.batch_size: 7 .* the 6 images of a task .*; at most 6 .*"),
        ([HARD, "env.easy_classes=0"], r"env\.easy_classes: must be .* 1, not 0\."),
        ([NEW, "network=convnet"], r"network\.kernel_sizes: images of 4x5 are too small .*"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_impossible_is_said(tmp_path, data, overrides, message):
    path = write_npz(tmp_path / "data.npz", data.x_train, data.y_train, data.x_test, data.y_test)
    config = tiny.compose(*SMALL, "env.num_tasks=3", f"env.dataset.path={path}", *overrides)
    with pytest.raises(ConfigError, match=f"^{message}$"):
        building.prepare(config)


SMALL = (
    "device=cpu",
    "wandb.mode=disabled",
    "engine.compile=false",
    "network=mlp",
    "network.hidden_sizes=[5,5]",
    "env/dataset=npz",
    "env.samples_per_class=6",
    "env.test_samples_per_class=4",
    "env.steps_per_task=8",
    "env.batch_size=5",
)


def test_only_hard_tasks_are_scored(tmp_path, data):
    path = write_npz(tmp_path / "data.npz", data.x_train, data.y_train, data.x_test, data.y_test)
    config = tiny.compose(*SMALL, HARD, f"env.dataset.path={path}", "env.num_tasks=3", "optimizer.lr=1e-2")
    (run,) = tiny.train([config], tmp_path / "run")
    rows = [line.split(",") for line in run.tasks.splitlines()]
    assert [row[1] for row in rows[1:]] == ["hard", "easy", "hard"]
    accuracy = [float(row[rows[0].index("online_accuracy")]) for row in rows[1:]]
    assert accuracy[1] not in (accuracy[0], accuracy[2])
    assert run.summary["total_average_online_accuracy"] == pytest.approx((accuracy[0] + accuracy[2]) / 2)


def test_accuracy_is_that_on_the_tasks_own_test_images(tmp_path, data):
    path = write_npz(tmp_path / "data.npz", data.x_train, data.y_train, data.x_test, data.y_test)
    configs = [
        tiny.compose(*SMALL, HARD, f"env.dataset.path={path}", "env.num_tasks=3", f"seed={seed}")
        for seed in (0, 1)
    ]
    population = tiny.population(configs)
    env = population.environment
    for number in range(3):
        population.start_task(number)
        population.advance(8)
        measured = measuring.at_task_end(population)["test_accuracy"]
        for replica in (0, 1):
            key = random.stream(random.key(replica), "environment")
            rows = env.task(env.draw_stream(key), key, number)["test_rows"][: env.test_size(number)]
            params = {name: value[replica] for name, value in population.state["params"].items()}
            x = data.x_test[rows] * env.dataset.scale[0] + env.dataset.shift[0]
            logits, _ = population.learner.forward(params, x)
            correct = (logits.argmax(1) == data.y_test[rows]).float().mean()
            assert measured[replica].item() == pytest.approx(correct.item())


@pytest.mark.parametrize(
    ("absent", "key"), [("train", "samples_per_class"), ("test", "test_samples_per_class")]
)
def test_a_class_without_an_image_is_named(data, absent, key):
    labels = getattr(data, f"y_{absent}")
    gap = dataclasses.replace(data, **{f"y_{absent}": torch.where(labels == 9, 3, labels)})
    sizes = {"num_tasks": 4, "steps_per_task": 9, "batch_size": 5}
    with pytest.raises(
        ConfigError, match=rf"^env\.{key}: class 9 has no (training|test) image in the dataset"
    ):
        NewClasses(dataset=gap, **sizes, samples_per_class=6, test_samples_per_class=3, classes_per_task=3)


def test_what_is_measured_on_some_images_sees_all_classes(tmp_path, data, monkeypatch):
    """A task's images lie class by class: the first ones would not do."""
    path = write_npz(tmp_path / "data.npz", data.x_train, data.y_train, data.x_test, data.y_test)
    config = tiny.compose(*SMALL, HARD, f"env.dataset.path={path}", "env.num_tasks=1")
    population = tiny.population([{**config, "seed": seed} for seed in range(200)])
    env = population.environment
    population.start_task(0)
    per_class = env.samples_per_class

    def seen(params, initial, x, y, key):
        return {"labels": y}

    some = population.on_training_examples(per_class, seen)["labels"]
    all_of_them = population.on_training_examples(1000, seen)["labels"]
    assert some.shape == (200, per_class)
    for r in range(200):
        assert all_of_them[r].unique_consecutive().shape == (env.hard_classes,)
        assert (some[r].bincount(minlength=CLASSES) <= all_of_them[r].bincount(minlength=CLASSES)).all()
    share = torch.stack([(some == labels[:, None]).double().mean() for labels in all_of_them.T[::per_class]])
    # A class's share of 200 samples without replacement has a deviation below this.
    deviation = (0.25 / (200 * per_class)) ** 0.5
    assert ((share - 1 / env.hard_classes).abs() < 4 * deviation).all()

    monkeypatch.setattr(measuring, "_MEASURED_EXAMPLES", 3)
    measured = measuring.at_task_end(population)
    key = random.fold(random.stream(random.key(7), "measured images"), 0)
    params = {name: value[7] for name, value in population.state["params"].items()}
    rows = population.on_test_examples(0, lambda params, initial, x, y, key: {"x": x})["x"][7]
    features = population.learner.forward(params, rows[random.permutation(key, len(rows))[:3]])[1]
    expected = metrics.plasticity(features, params, params)
    assert float(measured["effective_rank"][7]) == pytest.approx(float(expected["effective_rank"]))


def test_a_copy_on_another_device_is_the_same_environment(env):
    copy = dataclasses.replace(env, dataset=dataclasses.replace(env.dataset))
    for one, other in zip(tasks(env, KEYS[0]), tasks(copy, KEYS[0]), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("reuse", ["same_order", "new_order"])
def test_classes_may_be_used_again(data, reuse):
    """Once all are used, the same tasks come again, or others; within a pass no class comes twice."""
    pairs = CLASSES // 2
    common = {"dataset": data, "steps_per_task": 9, "batch_size": 5, "samples_per_class": 6}
    env = NewClasses(**common, num_tasks=3 * pairs, test_samples_per_class=3, classes_per_task=2, reuse=reuse)
    drawn = env.draw_stream(KEYS[0])
    classes = [env.drawn_classes(drawn, KEYS[0], number).tolist() for number in range(env.num_tasks)]
    passes = [classes[i * pairs : (i + 1) * pairs] for i in range(3)]
    for one in passes:
        assert len({k for pair in one for k in pair}) == 2 * pairs
    assert (passes[0] == passes[1] == passes[2]) == (reuse == "same_order")
    never = NewClasses(**common, num_tasks=pairs, test_samples_per_class=3, classes_per_task=2)
    assert [
        never.drawn_classes(never.draw_stream(KEYS[0]), KEYS[0], number).tolist() for number in range(pairs)
    ] == passes[0]
