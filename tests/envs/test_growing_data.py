import pytest
import torch

from continual import random
from continual.config import check_config, num_steps
from continual.envs.growing_data import GrowingData
from continual.errors import ConfigError
from tests import tiny

KEY = random.stream(random.key(0), "environment")


def env(dataset, **settings):
    common = {"num_tasks": 3, "batch_size": 8, "samples": [10, 30, 55], "epochs": [3, 2, 1]}
    return GrowingData(dataset=dataset, **{**common, **settings})


def tasks(env):
    drawn = env.draw_stream(KEY)
    return [env.task(drawn, KEY, number) for number in range(env.num_tasks)]


def test_a_task_has_the_images_of_the_one_before_and_more(dataset):
    one = env(dataset)
    rows = [task["rows"][: one.task_size(i)].tolist() for i, task in enumerate(tasks(one))]
    assert [len(set(r)) for r in rows] == [10, 30, 55]
    assert rows[2][:30] == rows[1]
    assert rows[1][:10] == rows[0]
    newest = env(dataset, images="newest")
    fresh = [task["rows"][: newest.task_size(i)].tolist() for i, task in enumerate(tasks(newest))]
    assert fresh == [rows[0], rows[1][10:], rows[2][30:]]


def test_steps_are_epochs_with_a_last_partial_batch(dataset):
    one = env(dataset)
    assert [one.steps(i) for i in range(3)] == [3 * 2, 2 * 4, 1 * 7]
    assert [one.first_step(i) for i in range(4)] == [0, 6, 14, 21]
    settings = {"samples": [10, 30, 55], "epochs": [3, 2, 1], "batch_size": 8}
    assert [GrowingData.num_steps(settings, tasks) for tasks in (0, 1, 2, None)] == [0, 6, 14, 21]
    assert GrowingData.num_steps({**settings, "images": "newest", "epochs": 2}) == 2 * (2 + 3 + 4)
    batches = one.shuffle(KEY, 0, 1)
    assert batches.shape == (2, 8)
    assert sorted(batches.flatten().tolist()) == [-1] * 6 + list(range(10))
    assert batches[1, 2:].tolist() == [-1] * 6
    assert [one.examples(0, steps) for steps in range(5)] == [0, 8, 10, 18, 20]


def test_wrong_labels_are_always_the_same_ones(dataset):
    one = env(dataset, wrong_labels=[0.6, 0.3, 0.0], samples=[50, 55, 60])
    wrong = []
    for i, task in enumerate(tasks(one)):
        size = one.task_size(i)
        rows, labels = task["rows"][:size], task["labels"][:size]
        wrong.append({int(r): int(k) for r, k in zip(rows, labels, strict=True) if k != dataset.y_train[r]})
    assert len(wrong[0]) / 50 == pytest.approx(0.6, abs=0.2)
    assert 0 < len(wrong[1]) < len(wrong[0])
    assert not wrong[2]
    assert all(wrong[0].get(row, label) == label for row, label in wrong[1].items())


def test_every_task_is_tested_on_the_whole_test_set(dataset):
    for task in tasks(env(dataset)):
        assert sorted(task["test_rows"].tolist()) == list(range(20))
        assert torch.equal(task["test_labels"], dataset.y_test[task["test_rows"]])
    assert env(dataset, test_samples=7).test_size(0) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": [10, 30, 61]}, r"env\.samples: 61 is more than the dataset's 60 training images"),
        ({"samples": [10, 10, 30]}, r"env\.samples: \[10, 10, 30\] does not grow"),
        ({"epochs": [1, 2]}, r"env\.epochs: 2 values are given for 3 tasks"),
        ({"wrong_labels": [0.5]}, r"env\.wrong_labels: 1 values are given for 3 tasks"),
    ],
)
def test_what_cannot_be(dataset, settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        env(dataset, **settings)


def test_a_run_of_tasks_that_differ_in_length(tmp_path, compose):
    sizes = ("env.samples=[13,33]", "env.epochs=2", "metrics.task_fractions=[0.5]")
    config = compose("env=growing_cifar", "network=mlp", "env.score=online", *sizes)
    check_config(config)
    (run,) = tiny.train([config], tmp_path)
    # 13 and 33 images in batches of 7, two epochs each
    assert [row["step"] for row in run.rows] == [4, 14]
    assert num_steps(config) == 14
    for row, images in zip(run.rows, (26, 66), strict=True):
        correct = row["online_accuracy"] * images
        assert correct == pytest.approx(round(correct), abs=1e-6)
    online = [row["online_accuracy"] for row in run.rows]
    assert run.summary["score"] == pytest.approx((4 * online[0] + 10 * online[1]) / 14)
    assert run.summary["total_average_online_accuracy"] == run.summary["score"]


def test_the_score_may_be_what_is_tested(tmp_path, compose):
    (run,) = tiny.train([compose("env=growing_cifar", "network=mlp")], tmp_path)
    assert run.summary["score_name"] == "total_average_test_accuracy"
    assert run.summary["score"] == pytest.approx(sum(row["test_accuracy"] for row in run.rows) / 2)
