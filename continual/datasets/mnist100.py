"""MNIST-100: a hundred classes made of pairs of MNIST digits."""

import numpy as np
import torch
from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.mnist import mnist
from continual.errors import DataError


def mnist100(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """Two MNIST digits one above the other: uint8 [60000, 1, 56, 28] and [10000, 1, 56, 28].

    The class is 10 * top + bottom. There are as many train (test) images as in MNIST, made of its
    train (test) images by a fixed rule (`pair_digits`) that gives every class the same number of
    images, 600 and 100. Files, arguments and errors are those of `mnist`.
    """
    digits = mnist(data_dir, download, verify, normalise="raw")
    x_train, y_train = pair_digits(digits.x_train, digits.y_train)
    x_test, y_test = pair_digits(digits.x_test, digits.y_test)
    return normalised(x_train, y_train, x_test, y_test, 100, normalise)


def pair_digits(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 2H, W] of pairs and their labels [N], from images [N, 1, H, W] of digits `y`.

    Pair j has class j mod 100, so that any run of 100 pairs holds every class once, and is number
    k = j // 100 of its class. With top digit t and bottom digit b, its top is image 10k + b of
    digit t, and its bottom is image 10k + t + n_b // 2 of digit b, both counted in the file's order
    and modulo the number n of images of that digit. Thus the images of a digit are used equally
    often, give or take one, at either place, and never with themselves.

    Raises:
        DataError: if one of the ten digits does not occur.
    """
    counts = np.bincount(y.numpy(), minlength=10)
    if not counts.all():
        raise DataError(f"mnist100 needs images of every digit, and MNIST's files have no {counts.argmin()}.")
    by_digit = np.argsort(y.numpy(), kind="stable")
    first = np.cumsum(counts) - counts
    k, label = np.divmod(np.arange(len(y)), 100)
    top, bottom = np.divmod(label, 10)
    rows_top = by_digit[first[top] + (10 * k + bottom) % counts[top]]
    rows_bottom = by_digit[first[bottom] + (10 * k + top + counts[bottom] // 2) % counts[bottom]]
    pairs = torch.cat([x[rows_top], x[rows_bottom]], dim=2)
    return pairs, torch.from_numpy(label)
