import numpy as np
import pytest
import scipy.io

from continual.datasets import svhn as module
from continual.datasets.svhn import svhn
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_svhn

SHAPE = (3, 32, 32)


def test_files_are_read_as_they_are(tmp_path):
    x_train, y_train, x_test, y_test = random_arrays(30, 20, SHAPE)
    write_svhn(tmp_path, x_train, y_train, x_test, y_test)
    dataset = svhn(str(tmp_path))
    for found, written in zip(
        (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test),
        (x_train, y_train, x_test, y_test),
        strict=True,
    ):
        np.testing.assert_array_equal(found.numpy(), written)
    assert dataset.num_classes == 10
    assert dataset.x_train.is_contiguous()


def test_absent_files_are_named_with_folder_and_ways_out(tmp_path):
    with pytest.raises(DataError) as caught:
        svhn(str(tmp_path))
    for part in (
        str(tmp_path),
        "train_32x32.mat and test_32x32.mat",
        "data_dir=",
        "env.dataset.download=true",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"<html>404</html>" * 20, "damaged"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8)}, "y"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((3, 1))}, "3 labels for 4 images"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.full((2, 1), 11)}, r"labels outside 1\.\.10"),
        ({"X": np.zeros((8, 8, 3, 2), np.uint8), "y": np.ones((2, 1))}, r"\(2, 3, 8, 8\) in place of"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "float64"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, why):
    write_svhn(tmp_path, *random_arrays(4, 2, SHAPE))
    file = tmp_path / "test_32x32.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        scipy.io.savemat(file, content)
    with pytest.raises(DataError, match=why) as caught:
        svhn(str(tmp_path))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_the_official_number_of_images_must_be_the_official_one(tmp_path, monkeypatch):
    write_svhn(tmp_path, *random_arrays(4, 2, SHAPE))
    monkeypatch.setitem(module.OFFICIAL_SIZES, "test_32x32.mat", 2)
    with pytest.raises(DataError, match=r"test_32x32\.mat is damaged .*env\.dataset\.verify=false"):
        svhn(str(tmp_path))
    assert len(svhn(str(tmp_path), verify=False).x_test) == 2
