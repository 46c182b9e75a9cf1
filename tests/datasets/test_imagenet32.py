import numpy as np
import pytest
import torch

from continual.datasets.imagenet32 import imagenet32
from continual.errors import DataError
from tests.datasets.writers import write_imagenet32


def test_the_first_600_images_of_a_class_train_and_the_last_100_test(tmp_path):
    folder = write_imagenet32(tmp_path, num_classes=3)
    dataset = imagenet32(str(tmp_path), num_classes=3)
    classes = np.stack([np.load(folder / f"{k}.npy") for k in range(3)])
    for k in range(3):
        train, test = dataset.y_train == k, dataset.y_test == k
        assert torch.equal(dataset.x_train[train], torch.from_numpy(classes[k, :600]))
        assert torch.equal(dataset.x_test[test], torch.from_numpy(classes[k, 600:]))
    assert dataset.num_classes == 3
    assert dataset.x_train.shape == (1800, 3, 32, 32)
    assert dataset.scale == pytest.approx((2 / 255,) * 3)
    assert dataset.shift == (-1.0,) * 3


def test_only_the_classes_asked_for_are_needed(tmp_path):
    write_imagenet32(tmp_path, num_classes=1)
    assert imagenet32(str(tmp_path), num_classes=1).num_classes == 1
    with pytest.raises(DataError, match=r"lacks 1\.npy \(it holds 0\.npy\): "):
        imagenet32(str(tmp_path), num_classes=2)


def test_absent_files_are_named_with_folder_and_ways_out(tmp_path):
    with pytest.raises(DataError) as caught:
        imagenet32(str(tmp_path))
    message = str(caught.value)
    for part in (
        str(tmp_path / "imagenet32" / "classes"),
        "0.npy, 1.npy, 2.npy and 997 more",
        "CONTINUAL_DATA_DIR",
        "data_dir=",
        "loss-of-plasticity",
    ):
        assert part in message
    assert "download=true" not in message


def test_other_arrays_are_refused(tmp_path):
    folder = write_imagenet32(tmp_path, num_classes=2)
    for array in (
        np.zeros((699, 3, 32, 32), np.uint8),
        np.zeros((700, 32, 32, 3), np.uint8),
        np.zeros((700, 3, 32, 32), np.float32),
        np.array([{}]),
    ):
        np.save(folder / "1.npy", array)
        with pytest.raises(DataError, match=r"1\.npy is damaged or not what it should be"):
            imagenet32(str(tmp_path), num_classes=2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:50],
        lambda content: b"",
        lambda content: b"<html>",
    ],
)
def test_damaged_files_are_refused(tmp_path, damage):
    folder = write_imagenet32(tmp_path, num_classes=1)
    (folder / "0.npy").write_bytes(damage((folder / "0.npy").read_bytes()))
    with pytest.raises(DataError, match=r"0\.npy is damaged"):
        imagenet32(str(tmp_path), num_classes=1)
