"""The paper's problems with conv nets, on small files in the formats of their datasets."""

import math

import pytest
import torch

from tests import tiny
from tests.datasets.writers import (
    random_arrays,
    write_cifar10,
    write_cifar100,
    write_imagenet32,
    write_mnist,
    write_npz,
)

SIZES = {
    "random_label_cifar": ["env.samples_per_task=40"],
    "easy_hard_cifar100": ["env.samples_per_class=6", "env.test_samples_per_class=4"],
    "continual_imagenet": ["env.samples_per_class=6", "env.test_samples_per_class=4"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cifar10(folder, *random_arrays(50, 20, (3, 32, 32)))
    write_cifar100(folder, *random_arrays(600, 400, (3, 32, 32), 100))
    write_imagenet32(folder, 4)
    write_mnist(folder, *random_arrays(600, 400))
    write_npz(folder / "mine.npz", *random_arrays(120, 80, (3, 16, 16), 20))
    return folder


def population(folder, env, dataset):
    own = {"npz": [f"env.dataset.path={folder}/mine.npz"], "imagenet32": ["env.dataset.num_classes=4"]}
    own |= {cifar: ["env.dataset.verify=false"] for cifar in ("cifar10", "cifar100")}
    return tiny.population(
        [
            tiny.compose(
                f"env={env}",
                f"env/dataset={dataset}",
                f"data_dir={folder}",
                "device=cpu",
                "env.num_tasks=2",
                "env.steps_per_task=3",
                "env.batch_size=5",
                *SIZES[env],
                *own.get(dataset, []),
            )
        ]
    )


@pytest.mark.parametrize(
    ("env", "dataset", "outputs"),
    [
        ("random_label_cifar", "cifar10", 10),
        ("random_label_cifar", "npz", 20),
        ("easy_hard_cifar100", "cifar100", 100),
        ("easy_hard_cifar100", "mnist100", 100),
        ("easy_hard_cifar100", "npz", 20),
        ("continual_imagenet", "imagenet32", 2),
        ("continual_imagenet", "cifar100", 2),
        ("continual_imagenet", "mnist100", 2),
        ("continual_imagenet", "npz", 2),
    ],
)
def test_with_the_papers_network(folder, env, dataset, outputs):
    learning = population(folder, env, dataset)
    assert learning.environment.dataset.x_train.dtype == torch.uint8
    assert learning.state["params"]["output.weight"].shape == (1, outputs, 100)
    assert learning.state["params"]["conv1.weight"].shape == (1, 16, 16, 5, 5)
    for task in range(2):
        learning.start_task(task)
        learning.advance(3)
        assert learning.online_loss()[0] == pytest.approx(math.log(outputs), rel=0.5)


def test_images_are_those_of_the_files(folder):
    """In these files every pixel of image i of class k is (k + i) mod 256, but for one row."""
    environment = population(folder, "continual_imagenet", "imagenet32").environment
    key = torch.tensor([1, 2], dtype=torch.int32)
    task = environment.task(environment.draw_stream(key), key, 0)
    for rows, pixels, first, per_class in (
        (task["rows"], environment.dataset.x_train, 0, 600),
        (task["test_rows"], environment.dataset.x_test, 600, 100),
    ):
        k, i = rows // per_class, rows % per_class
        assert torch.equal(pixels[rows, 0, 0, 0].long(), (k + first + i) % 256)
