"""Scikit-learn's digits, which come with the library: the dataset that needs no download."""

import numpy as np
import torch

from continual.datasets.dataset import Dataset, Normalise, normalised


def digits(normalise: Normalise = "minus_one_to_one") -> Dataset:
    """Small handwritten digits: uint8 [1437, 1, 8, 8] and [360, 1, 8, 8], values 0..16, 10 classes.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI
    repository) as scikit-learn ships it.

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
    return normalised(x[~is_test], y[~is_test], x[is_test], y[is_test], 10, normalise, largest=16.0)
