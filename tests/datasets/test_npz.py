import os
import zipfile

import numpy as np
import pytest
import torch

from continual.datasets.npz import npz
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_npz


def arrays(**changes):
    """The four arrays of a good file, 6 and 3 images of 2 classes, but for `changes`."""
    x_train, y_train, x_test, y_test = random_arrays(6, 3, shape=(3, 5, 4), num_classes=2)
    good = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return good | changes


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), (1, 1, 7)),
        ((5, 4), (1, 5, 4)),
        ((3, 5, 4), (3, 5, 4)),
        ((1, 5, 4), (1, 5, 4)),
        ((5, 4, 3), (3, 5, 4)),
        ((5, 4, 1), (1, 5, 4)),
        ((3, 5, 3), (3, 5, 3)),
        ((1, 5, 3), (1, 5, 3)),
    ],
)
def test_shapes(tmp_path, shape, expected):
    x_train, y_train, x_test, y_test = random_arrays(6, 4, shape=shape)
    dataset = npz(str(write_npz(tmp_path / "my.npz", x_train, y_train, x_test, y_test)))
    assert dataset.input_shape == expected
    if shape[-1:] == expected[:1] and expected != shape:
        x_train = np.moveaxis(x_train, -1, 1)
    torch.testing.assert_close(dataset.x_train.flatten(), torch.from_numpy(x_train.flatten()))
    assert dataset.x_train.is_contiguous()


def test_uint8_images_are_normalised_to_plus_minus_one(tmp_path):
    dataset = npz(str(write_npz(tmp_path / "my.npz", **arrays())))
    assert dataset.x_train.dtype == torch.uint8
    assert dataset.scale == pytest.approx((2 / 255,) * 3)
    assert dataset.shift == (-1.0,) * 3
    assert dataset.num_classes == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
def test_float_images_are_taken_as_they_are(tmp_path, dtype):
    x = np.linspace(-2, 3, 6 * 5 * 4).reshape(6, 5, 4).astype(dtype)
    dataset = npz(str(write_npz(tmp_path / "my.npz", **arrays(x_train=x, x_test=x[:3]))))
    assert dataset.x_train.dtype == torch.float32
    assert dataset.x_train[:, 0].tolist() == x.astype(np.float32).tolist()
    assert (dataset.scale, dataset.shift) == ((1.0,), (0.0,))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64, ">i4"])
def test_labels_of_any_integer_type(tmp_path, dtype):
    y = np.array([0, 3, 1, 1, 0, 2]).astype(dtype)
    changes = {"y_train": y[:, None], "y_test": y[:3]}
    dataset = npz(str(write_npz(tmp_path / "my.npz", **arrays(**changes))))
    assert dataset.y_train.tolist() == [0, 3, 1, 1, 0, 2]
    assert dataset.y_train.dtype == torch.int64
    assert dataset.num_classes == 4


def test_a_compressed_file_is_read(tmp_path):
    np.savez_compressed(tmp_path / "my.npz", **arrays())
    assert npz(str(tmp_path / "my.npz")).x_test.numpy().tolist() == arrays()["x_test"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((6, 3, 5, 4), np.int32)}, "x_train holds int32 .*env.dataset.normalise to"),
        ({"x_train": np.zeros((6, 3, 5, 4), bool)}, "x_train holds bool"),
        ({"x_train": np.zeros((6, 3, 5, 4), complex)}, "x_train holds complex128"),
        ({"x_test": np.zeros((3, 3, 5, 4))}, "x_train holds uint8 and x_test float32"),
        ({"x_train": np.full((6, 3, 5, 4), np.nan)}, "x_train must hold finite"),
        ({"x_train": np.full((6, 3, 5, 4), 1e200)}, "x_train must hold finite"),
        ({"x_train": np.zeros((6, 4, 5, 4), np.uint8)}, r"x_train has the shape \(6, 4, 5, 4\)"),
        ({"x_train": np.zeros((6, 2, 3, 5, 4), np.uint8)}, "x_train has the shape"),
        ({"x_train": np.zeros(6, np.uint8)}, r"x_train has the shape \(6,\)"),
        ({"x_train": np.zeros((), np.uint8)}, r"x_train has the shape \(\)"),
        ({"x_train": np.zeros((0, 3, 5, 4), np.uint8)}, "x_train is empty"),
        ({"x_test": np.zeros((3, 3, 4, 4), np.uint8)}, "same shape"),
        ({"y_train": np.zeros(5, int)}, "one label for each of the 6 images"),
        ({"y_test": np.zeros(4, int)}, "one label for each of the 3 images"),
        ({"y_train": np.zeros(6)}, "y_train holds float64; labels must be integers"),
        ({"y_train": np.array(list("abcdef"))}, "y_train holds <U1; labels must be integers"),
        ({"y_train": np.zeros((6, 2), int)}, r"y_train has the shape \(6, 2\)"),
        ({"y_test": np.zeros((), int)}, r"y_test has the shape \(\)"),
        ({"y_test": np.array([0, -1, 1])}, "y_test holds labels below 0"),
        (
            {"y_test": np.array([0, 2**63, 1], np.uint64)},
            "y_test holds labels below 0 or too large",
        ),
        ({"x_train": np.array([{}, {}])}, "images in x_train are Python objects: save them as uint8 or"),
        (
            {"y_train": np.array([*"010101"], object)},
            "labels in y_train are Python objects: save them as int",
        ),
        ({"y_test": np.array([0, 1, None])}, "labels in y_test are Python objects: save them as integers"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changes, message):
    path = write_npz(tmp_path / "my.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        npz(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3, 1, 2, 3], "from 1 to 3, y_test from 0 to 1, and no training image has the label 0: "),
        ([0, 10, 20, 0, 10, 20], "no training image has the label 1, 2, 3, 4, 5, 6 and 12 more: "),
        ([0, 1, 3, 3, 3, 3], "no training image has the label 2: "),
        ([7, 7, 7, 7, 7, 7], "no training image has the label 0, 1, 2, 3, 4, 5 and 1 more: "),
        ([0, 1, 2, 3, 4, 2**62], "the label 5, 6, 7, 8, 9, 10 and 4611686018427387893 more: "),
        ([0, 0, 0, 0, 0, 0], "from 0 to 0, y_test from 0 to 1, and no training image has the label 1: "),
    ],
)
def test_every_label_up_to_the_largest_has_a_training_image(tmp_path, labels, message):
    changes = {"y_train": np.array(labels), "y_test": np.array([0, 1, 0])}
    with pytest.raises(DataError, match=f"{message}labels must count the classes from 0 without a gap"):
        npz(str(write_npz(tmp_path / "my.npz", **arrays(**changes))))


def test_a_class_without_a_test_image_is_taken(tmp_path):
    changes = {"y_train": np.arange(6) % 3, "y_test": np.zeros(3, int)}
    assert npz(str(write_npz(tmp_path / "my.npz", **arrays(**changes)))).num_classes == 3


def pixels(high, dtype, low=0):
    """Images, for training and for testing, with values from `low` to `high`."""
    x = np.linspace(low, high, 9 * 5 * 4).reshape(9, 5, 4)
    np.random.default_rng(0).shuffle(x)
    x[0, 0, 0], x[8, 0, 0] = low, high
    return {"x_train": x[:6].astype(dtype), "x_test": x[3:].astype(dtype)[3:]}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(255, np.float32), "x_train holds values from 0 to 255, too large"),
        (pixels(255, np.float16), "too large"),
        (pixels(65535, np.float64), "too large"),
        (pixels(128, np.float32, low=-128), "too large"),
        (pixels(1 / 255, np.float32), "too small"),
        (pixels(1, np.uint8), "from 0 to 1, a small part of the range 0 to 255"),
        (pixels(16, np.uint8), "a small part of the range 0 to 255"),
        (pixels(65535, np.uint16), "x_train holds uint16 with values from 0 to 65535"),
        (pixels(255, np.int64), "x_train holds int64 with values from 0 to 255"),
        (
            {"x_train": pixels(1, np.float32)["x_train"], "x_test": pixels(255, np.float32)["x_test"]},
            "x_train holds values from 0 to 1 and x_test holds values from .* to 255: both",
        ),
        (
            {"x_train": pixels(255, np.uint8)["x_train"], "x_test": pixels(1, np.uint8)["x_test"]},
            "both must have the same scale",
        ),
    ],
)
def test_images_of_an_unexpected_scale_are_refused(tmp_path, images, message):
    path = write_npz(tmp_path / "my.npz", **arrays(**images))
    with pytest.raises(DataError, match=message) as caught:
        npz(str(path))
    assert "same scale" in str(caught.value) or "env.dataset.normalise" in str(caught.value)


@pytest.mark.parametrize("images", [pixels(255, np.float32), pixels(1, np.uint8), pixels(4095, np.uint16)])
def test_normalise_is_the_way_out(tmp_path, images):
    path = str(write_npz(tmp_path / "my.npz", **arrays(**images)))
    x = images["x_train"].astype(np.float64)

    def network_input(normalise):
        dataset = npz(path, normalise)
        return dataset.x_train.double() * dataset.scale[0] + dataset.shift[0]

    raw, standard = network_input("raw"), network_input("mean_std")
    assert raw[:, 0].tolist() == x.tolist()
    assert (float(standard.mean()), float(standard.std(correction=0))) == pytest.approx((0, 1), abs=1e-6)
    if images["x_train"].dtype != np.uint8:
        assert network_input("zero_to_one").flatten()[0] == pytest.approx(x.flat[0] / x.max())
        assert network_input("minus_one_to_one").aminmax() == pytest.approx((-1, 1))


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "my.npz", x_train=np.zeros(3), images=np.zeros(3), y_test=np.zeros(3))
    with pytest.raises(DataError, match=r"no array y_train and no x_test.*holds x_train, images"):
        npz(str(tmp_path / "my.npz"))


def test_an_absent_file_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"env\.dataset\.path must name") as caught:
        npz("my.npz")
    assert str(tmp_path / "my.npz") in str(caught.value)


def test_a_relative_path_starts_at_the_current_folder(tmp_path, monkeypatch):
    write_npz(tmp_path / "data" / "my.npz", **arrays())
    monkeypatch.chdir(tmp_path)
    assert len(npz(os.path.join("data", "my.npz")).x_train) == 6


def test_a_folder_is_no_npz(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        npz(str(tmp_path))


def npy_bytes(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    return (tmp_path / "array.npy").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4 no zip either"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "my.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"my\.npz is damaged or not what it should be"):
        npz(str(tmp_path / "my.npz"))


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "my.npy", np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        npz(str(tmp_path / "my.npy"))


def test_an_entry_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "my.npz", "w") as archive:
        for name in arrays():
            archive.writestr(f"{name}.npy", b"no array")
    with pytest.raises(DataError, match="its array x_train cannot be read"):
        npz(str(tmp_path / "my.npz"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_noticed_wherever_the_damage(tmp_path, compressed):
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "good.npz", **arrays())
    content = (tmp_path / "good.npz").read_bytes()
    expected = npz(str(tmp_path / "good.npz"))
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.choice(len(content), 100, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        (tmp_path / "bad.npz").write_bytes(damaged)
        try:
            dataset = npz(str(tmp_path / "bad.npz"))
        except DataError:
            refused += 1
        else:  # a byte that says nothing about the arrays, such as the date
            assert torch.equal(dataset.x_train, expected.x_train)
            assert torch.equal(dataset.y_test, expected.y_test)
    assert refused > 30
    for length in generator.choice(len(content), 20, replace=False):
        (tmp_path / "bad.npz").write_bytes(content[:length])
        with pytest.raises(DataError):
            npz(str(tmp_path / "bad.npz"))
