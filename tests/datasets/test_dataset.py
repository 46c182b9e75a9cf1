import pytest
import torch

from continual.datasets.dataset import Dataset, normalisation
from continual.errors import DataError


def fields(**changes):
    """The fields of a valid dataset of 6 train and 4 test images, 3x5x2, but for `changes`."""
    valid = {
        "x_train": torch.zeros(6, 3, 5, 2, dtype=torch.uint8),
        "y_train": torch.arange(6) % 4,
        "x_test": torch.zeros(4, 3, 5, 2, dtype=torch.uint8),
        "y_test": torch.arange(4),
        "num_classes": 4,
        "scale": (1.0, 1.0, 1.0),
        "shift": (0.0, 0.0, 0.0),
    }
    return valid | changes


def test_input_shape_is_channels_height_width():
    assert Dataset(**fields()).input_shape == (3, 5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"x_train": torch.zeros(6, 3, 5, 2, dtype=torch.float64)}, "x_train holds float64"),
        ({"x_test": torch.zeros(4, 3, 5, 2, dtype=torch.int16)}, "x_test holds int16"),
        ({"x_test": torch.zeros(4, 3, 5, 2)}, "x_train holds uint8 and x_test float32"),
        ({"x_train": torch.zeros(6, 3, 10)}, "x_train has the shape 6 x 3 x 10"),
        ({"x_train": torch.zeros(0, 3, 5, 2)}, "x_train has the shape 0 x 3 x 5 x 2"),
        ({"x_test": torch.zeros(4, 3, 2, 5, dtype=torch.uint8)}, "same shape"),
        ({"y_train": torch.zeros(6, dtype=torch.int32)}, "y_train holds int32"),
        ({"y_train": torch.zeros(5, dtype=torch.int64)}, "one label for each of the 6 images"),
        ({"y_test": torch.zeros(4, 1, dtype=torch.int64)}, "y_test has the shape 4 x 1"),
        ({"y_test": torch.tensor([0, 1, 2, 4])}, "y_test has labels from 0 to 4"),
        ({"y_train": torch.tensor([0, 1, 2, 3, 0, -1])}, "y_train has labels from -1 to 3"),
        ({"scale": (1.0,)}, "each of the 3 channels"),
        ({"shift": (0.0, float("nan"), 0.0)}, "shift is"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        Dataset(**fields(**changes))


def test_normalisation_is_division_then_mean_then_deviation():
    mean, std = (0.1, 0.5), (0.2, 0.25)
    scale, shift = normalisation(mean, std, largest=16.0)
    for pixel in (0.0, 3.0, 16.0):
        for channel in range(2):
            expected = (pixel / 16.0 - mean[channel]) / std[channel]
            assert pixel * scale[channel] + shift[channel] == pytest.approx(expected)
