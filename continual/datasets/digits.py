"""Scikit-learn's digits, which come with the library: the dataset that needs no download."""

import numpy as np
import torch

from continual.datasets.dataset import Dataset, normalisation


def digits() -> Dataset:
    """Small handwritten digits: uint8 [1437, 1, 8, 8] and [360, 1, 8, 8], values 0..16, 10 classes.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI
    repository) as scikit-learn ships it. Pixels go to [-1, 1].

    It has no official split. This one is fixed and stratified: with the images sorted by class (and
    within a class as they come), every fifth is a test image, so that each class gives a fifth of
    its images, give or take one. The last fifth of the file would not do: neighbours there are by
    the same writer, and the last writers by nobody in the rest. Both parts keep the file's order.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64))
    is_test = torch.zeros(len(y), dtype=torch.bool)
    is_test[torch.argsort(y, stable=True)[::5]] = True
    scale, shift = normalisation(mean=[0.5], std=[0.5], largest=16.0)
    return Dataset(x[~is_test], y[~is_test], x[is_test], y[is_test], 10, scale, shift)
