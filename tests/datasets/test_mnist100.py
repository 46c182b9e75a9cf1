import numpy as np
import pytest
import torch

from continual.datasets.mnist100 import mnist100, pair_digits
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_mnist


def test_a_pair_is_a_digit_above_a_digit(tmp_path):
    x_train, y_train, x_test, y_test = random_arrays(train=430, test=200, shape=(1, 6, 5))
    # Every pixel tells the digit: 10 * digit + something below 10.
    x_train = (10 * y_train[:, None, None, None] + x_train % 10).astype(np.uint8)
    x_test = (10 * y_test[:, None, None, None] + x_test % 10).astype(np.uint8)
    write_mnist(tmp_path, x_train, y_train, x_test, y_test)
    dataset = mnist100(str(tmp_path))
    assert dataset.num_classes == 100
    assert dataset.input_shape == (1, 12, 5)
    for x, y, count in (
        (dataset.x_train, dataset.y_train, 430),
        (dataset.x_test, dataset.y_test, 200),
    ):
        assert len(x) == count
        top, bottom = x[:, :, :6] // 10, x[:, :, 6:] // 10
        label = 10 * top.flatten(1).long() + bottom.flatten(1).long()
        torch.testing.assert_close(label, y[:, None].expand_as(label))


def unequal_digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 1, 2] that hold their own number in two bytes, digits of unequal frequency."""
    weights = np.array([9, 12, 10, 10, 9.5, 8, 10, 10.5, 10, 11])
    generator = np.random.default_rng(1)
    y = np.concatenate([np.arange(10), generator.choice(10, count - 10, p=weights / weights.sum())])
    x = np.stack([np.arange(count) // 256, np.arange(count) % 256], axis=1).astype(np.uint8)
    return torch.from_numpy(x)[:, None, None, :], torch.from_numpy(y)


def test_classes_are_equally_frequent_and_pairs_distinct():
    x, y = unequal_digits(6_000)
    pairs, labels = pair_digits(x, y)
    assert labels.bincount().tolist() == [60] * 100
    rows = pairs[:, 0].long() @ torch.tensor([256, 1])
    assert (rows[:, 0] != rows[:, 1]).all()
    assert len({tuple(row) for row in rows.tolist()}) == 6_000
    for place in range(2):
        uses = rows[:, place].bincount(minlength=6_000)
        for digit in range(10):
            of_digit = uses[y == digit]
            assert of_digit.max() - of_digit.min() <= 1


def test_the_first_pairs_are_as_documented():
    x, y = unequal_digits(500)
    images_of = [torch.nonzero(y == digit).flatten().tolist() for digit in range(10)]
    pairs, labels = pair_digits(x, y)
    rows = (pairs[:, 0].long() @ torch.tensor([256, 1])).tolist()
    for j in range(500):
        k, (t, b) = j // 100, divmod(j % 100, 10)
        top = images_of[t][(10 * k + b) % len(images_of[t])]
        bottom = images_of[b][(10 * k + t + len(images_of[b]) // 2) % len(images_of[b])]
        assert rows[j] == [top, bottom]
        assert labels[j] == 10 * t + b


def test_every_digit_is_needed(tmp_path):
    x_train, y_train, x_test, y_test = random_arrays(train=30, test=20)
    write_mnist(tmp_path, x_train, y_train, x_test, np.where(y_test == 7, 1, y_test))
    with pytest.raises(DataError, match="have no 7"):
        mnist100(str(tmp_path))


def test_the_real_mnist(real_data_dir):
    dataset = mnist100(real_data_dir)
    assert dataset.x_train.shape == (60_000, 1, 56, 28)
    assert dataset.y_train.bincount().tolist() == [600] * 100
    assert dataset.y_test.bincount().tolist() == [100] * 100
