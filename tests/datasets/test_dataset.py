import dataclasses

import pytest
import torch

from continual.datasets.dataset import Dataset, moments, normalisation, normalised
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


def ramp(**changes):
    """The arguments of `normalised` for 256 bytes in each of two channels, the second one darker."""
    x = torch.arange(256, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    x = torch.cat([x, x // 2], dim=1)
    y = torch.arange(256) % 4
    return {"x_train": x, "y_train": y, "x_test": x[100:], "y_test": y[100:], "num_classes": 4} | changes


def network_inputs(dataset):
    scale, shift = (torch.tensor(v).reshape(-1, 1, 1) for v in (dataset.scale, dataset.shift))
    return dataset.x_train.double() * scale + shift


def test_bytes_are_normalised_by_their_range_or_their_moments():
    stored = ramp()["x_train"].double()
    for normalise, expected in (
        ("raw", stored),
        ("zero_to_one", stored / 255),
        ("minus_one_to_one", (stored / 255 - 0.5) / 0.5),
        ("auto", (stored / 255 - 0.5) / 0.5),
        ("mean_std", (stored - stored.mean(0)) / stored.std(0, correction=0)),
    ):
        inputs = network_inputs(normalised(**ramp(), normalise=normalise))
        torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-4)


def test_floats_are_normalised_by_the_range_of_the_training_images():
    x = torch.tensor([-3.0, 0.0, 5.0]).reshape(3, 1, 1, 1)
    y = torch.arange(3)
    for normalise, expected in (
        ("auto", [-3, 0, 5]),
        ("zero_to_one", [0, 3 / 8, 1]),
        ("minus_one_to_one", [-1, -0.25, 1]),
    ):
        inputs = network_inputs(normalised(x, y, x[1:] * 2, y[1:], 3, normalise))
        torch.testing.assert_close(inputs.flatten(), torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_moments_of_many_images_are_those_of_all():
    x = torch.randint(256, (2300, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 7
    mean, std = moments(x)
    assert mean == pytest.approx((float(x[:, 0].double().mean()), 7))
    assert std == pytest.approx((float(x[:, 0].double().std(correction=0)), 1))


def test_the_fingerprint_names_the_arrays_and_not_their_scale():
    dataset = Dataset(**fields())
    assert len(dataset.fingerprint) == 16
    assert int(dataset.fingerprint, 16) >= 0
    same = (Dataset(**fields()), dataclasses.replace(dataset, scale=(2.0,) * 3, shift=(1.0,) * 3))
    assert {other.fingerprint for other in same} == {dataset.fingerprint}
    x = torch.zeros(6, 3, 5, 2, dtype=torch.uint8)
    one_pixel = x.clone()
    one_pixel[5, 2, 4, 1] = 1
    others = [
        Dataset(**fields(x_train=one_pixel)),
        Dataset(**fields(x_train=x.reshape(6, 3, 2, 5), x_test=x[:4].reshape(4, 3, 2, 5))),
        Dataset(**fields(x_train=x.float(), x_test=x[:4].float())),
        Dataset(**fields(y_train=torch.arange(6) % 3)),
        Dataset(**fields(y_test=torch.tensor([0, 1, 3, 2]))),
        Dataset(**fields(num_classes=5)),
        Dataset(**fields(x_train=x[:5], y_train=torch.arange(5) % 4)),
    ]
    assert len({other.fingerprint for other in [dataset, *others]}) == 1 + len(others)


def test_the_fingerprint_is_the_same_on_every_machine():
    assert Dataset(**fields()).fingerprint == "5dcbcfca4c1fb234"
