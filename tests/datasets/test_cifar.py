import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from continual.datasets.cifar import MEAN, STD, cifar10, cifar100
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_cifar10, write_cifar100

SETS = [(cifar10, write_cifar10, 10), (cifar100, write_cifar100, 100)]


@pytest.mark.parametrize(("load", "write", "num_classes"), SETS)
def test_files_are_read_as_they_are(tmp_path, load, write, num_classes):
    arrays = random_arrays(203, 101, shape=(3, 32, 32), num_classes=num_classes)
    write(tmp_path, *arrays)
    dataset = load(str(tmp_path), verify=False)
    parts = (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    for part, array in zip(parts, arrays, strict=True):
        torch.testing.assert_close(part, torch.from_numpy(array), rtol=0, atol=0)
    assert dataset.num_classes == num_classes
    for channel in range(3):
        ours = 100 * dataset.scale[channel] + dataset.shift[channel]
        assert ours == pytest.approx((100 / 255 - MEAN[channel]) / STD[channel])


def declare_official(monkeypatch, theirs, folder):
    """Make torchvision take the files in this folder for the official ones."""

    def md5(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        names = [name for name, _ in getattr(theirs, part)]
        monkeypatch.setattr(theirs, part, [[name, md5(name)] for name in names])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(theirs.meta["filename"])})


class Calls:
    """Pickles as the call of a function that leaves a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_no_file_is_unpickled_before_all_are_found_to_be_the_official_ones(tmp_path, monkeypatch, name):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    declare_official(monkeypatch, CIFAR10, folder)
    assert len(cifar10(str(tmp_path)).x_train) == 20
    (folder / name).write_bytes(pickle.dumps({"data": Calls(tmp_path / "ran")}))
    with pytest.raises(
        DataError, match=rf"{name} is damaged .*its MD5 is .*env\.dataset\.verify=false"
    ) as caught:
        cifar10(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("load", "folder", "files"),
    [
        (cifar10, "cifar-10-batches-py", [*(f"data_batch_{k}" for k in range(1, 6)), "batches.meta"]),
        (cifar100, "cifar-100-python", ["train", "test", "meta"]),
    ],
)
def test_absent_files_are_named_with_folder_and_ways_out(tmp_path, load, folder, files):
    with pytest.raises(DataError) as caught:
        load(str(tmp_path))
    for part in (
        str(tmp_path / folder),
        *files,
        "CONTINUAL_DATA_DIR",
        "data_dir=",
        "env.dataset.download=true",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def entries(**changes):
    """What a test file of 3 images holds, but for `changes`; None leaves an entry out."""
    good = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 9, 3]}
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (entries(data=None), "data"),
        (entries(data=np.zeros((3, 3072), np.int64)), "3 of int64 in place of uint8"),
        (entries(data=np.zeros((3, 3071), np.uint8)), "reshape"),
        (entries(data=np.zeros((0, 3072), np.uint8)), "0 of uint8"),
        (entries(labels=None), "labels"),
        (entries(labels=[0, 1.5, 2]), "float64 in place of integers"),
        (entries(labels=["0", "1", "2"]), "in place of integers"),
        (entries(labels=[0, 1]), r"the shape \(2,\) for 3 images"),
        (entries(labels=np.zeros((3, 2), int)), r"the shape \(3, 2\) for 3 images"),
        (entries(labels=[0, 1, 10]), r"labels outside 0\.\.9"),
        (entries(labels=[0, 1, -1]), r"labels outside 0\.\.9"),
        ([1, 2], "indices"),
    ],
)
def test_files_with_other_content_are_refused(tmp_path, content, why):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    (folder / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError, match=why) as caught:
        cifar10(str(tmp_path), verify=False)
    assert str(folder / "test_batch") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_in_a_column_are_read(tmp_path):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    (folder / "test_batch").write_bytes(pickle.dumps(entries(labels=np.array([[4], [0], [9]])), 2))
    assert cifar10(str(tmp_path), verify=False).y_test.tolist() == [4, 0, 9]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    content = (folder / "data_batch_3").read_bytes()
    keep = int(keep * len(content)) if isinstance(keep, float) else keep
    (folder / "data_batch_3").write_bytes(content[:keep])
    with pytest.raises(DataError, match="data_batch_3 is damaged"):
        cifar10(str(tmp_path), verify=False)


@pytest.mark.parametrize("load", [cifar10, cifar100])
def test_download_without_a_network_is_explained(tmp_path, no_network, load):
    with pytest.raises(DataError, match=r"could not be downloaded.*CONTINUAL_DATA_DIR") as caught:
        load(str(tmp_path / "data"), download=True)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_download_fetches_and_unpacks(tmp_path, monkeypatch, mirror):
    arrays = random_arrays(20, 10, shape=(3, 32, 32))
    folder = write_cifar10(tmp_path / "original", *arrays)
    archive = mirror.folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    monkeypatch.setattr(CIFAR10, "url", f"{mirror.url}{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    data_dir = tmp_path / "data"
    declare_official(monkeypatch, CIFAR10, folder)
    assert cifar10(str(data_dir), download=True).x_train.tolist() == arrays[0].tolist()
    assert [path.name for path in data_dir.iterdir()] == [folder.name]


def test_a_download_with_another_checksum_is_not_kept(tmp_path, monkeypatch, mirror):
    (mirror.folder / CIFAR10.filename).write_bytes(b"a page that says to log in")
    monkeypatch.setattr(CIFAR10, "url", f"{mirror.url}{CIFAR10.filename}")
    with pytest.raises(DataError, match="could not be downloaded"):
        cifar10(str(tmp_path / "data"), download=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_both_normalise_with_the_numbers_of_cifar_10_or_as_asked(tmp_path):
    write_cifar100(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32), num_classes=100))
    assert cifar100(str(tmp_path), verify=False, normalise="zero_to_one").scale == pytest.approx(
        (1 / 255,) * 3
    )
