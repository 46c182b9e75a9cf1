import dataclasses
import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
import torchvision.datasets
from torchvision.datasets import CIFAR10, CIFAR100

import continual.datasets.cifar
from continual.datasets.cifar import MEAN, STD, cifar10, cifar100
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_cifar10, write_cifar100

SETS = [(cifar10, write_cifar10, 10), (cifar100, write_cifar100, 100)]


@pytest.mark.parametrize(("load", "write", "num_classes"), SETS)
def test_files_are_read_as_they_are(tmp_path, load, write, num_classes):
    arrays = random_arrays(203, 101, shape=(3, 32, 32), num_classes=num_classes)
    write(tmp_path, *arrays)
    dataset = load(str(tmp_path))
    parts = (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    for part, array in zip(parts, arrays, strict=True):
        torch.testing.assert_close(part, torch.from_numpy(array), rtol=0, atol=0)
    assert dataset.num_classes == num_classes
    for channel in range(3):
        ours = 100 * dataset.scale[channel] + dataset.shift[channel]
        assert ours == pytest.approx((100 / 255 - MEAN[channel]) / STD[channel])


@pytest.mark.parametrize(
    ("write", "theirs", "num_classes"),
    [(write_cifar10, CIFAR10, 10), (write_cifar100, CIFAR100, 100)],
)
# NumPy 2.4.0 to 2.4.4 deprecate the flags in pickles that Python 2 wrote.
@pytest.mark.filterwarnings("ignore:dtype")
def test_torchvision_reads_the_written_files_alike(tmp_path, monkeypatch, write, theirs, num_classes):
    arrays = random_arrays(20, 10, shape=(3, 32, 32), num_classes=num_classes)
    folder = write(tmp_path, *arrays)

    def md5(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        names = [name for name, _ in getattr(theirs, part)]
        monkeypatch.setattr(theirs, part, [[name, md5(name)] for name in names])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(theirs.meta["filename"])})
    train = theirs(tmp_path)
    np.testing.assert_array_equal(train.data.transpose(0, 3, 1, 2), arrays[0])
    assert train.targets == arrays[1].tolist()


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_of_python_3_are_read(tmp_path, protocol):
    x_train, y_train, x_test, y_test = random_arrays(9, 4, shape=(3, 32, 32), num_classes=100)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        content = {"data": x.reshape(len(x), -1), "fine_labels": y}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    dataset = cifar100(str(tmp_path))
    assert dataset.x_train.tolist() == x_train.tolist()
    assert dataset.y_test.tolist() == y_test.tolist()


@pytest.mark.parametrize(
    ("load", "folder", "files"),
    [
        (cifar10, "cifar-10-batches-py", [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]),
        (cifar100, "cifar-100-python", ["train", "test"]),
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
    good = {
        "data": np.zeros((3, 3072), np.uint8),
        "labels": [0, 9, 3],
        "filenames": ["a", "b", "c"],
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (entries(data=None), "no array of bytes called 'data'"),
        (entries(data=[[0] * 3072] * 3), "no array of bytes called 'data'"),
        (entries(data=np.zeros((3, 3072), np.int64)), "no array of bytes called 'data'"),
        (entries(data=np.zeros((3, 3071), np.uint8)), r"shape \(3, 3071\)"),
        (entries(data=np.zeros((3, 3, 1024), np.uint8)), r"shape \(3, 3, 1024\)"),
        (entries(data=np.zeros((0, 3072), np.uint8)), r"shape \(0, 3072\)"),
        (entries(labels=None), "no list of integers called 'labels'"),
        (entries(labels=[0, 1.5, 2]), "no list of integers called 'labels'"),
        (entries(labels=["0", "1", "2"]), "no list of integers called 'labels'"),
        (entries(labels=[0, 1]), "2 labels for 3 images"),
        (entries(labels=[0, 1, 10]), r"labels outside 0\.\.9"),
        (entries(labels=[0, 1, -1]), r"labels outside 0\.\.9"),
    ],
)
def test_files_with_other_content_are_refused(tmp_path, content, why):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    (folder / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError, match=why) as caught:
        cifar10(str(tmp_path))
    assert str(folder / "test_batch") in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    folder = write_cifar10(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32)))
    content = (folder / "data_batch_3").read_bytes()
    (folder / "data_batch_3").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="data_batch_3 is damaged"):
        cifar10(str(tmp_path))


def test_files_with_the_official_numbers_of_images_must_be_the_official_ones(tmp_path, monkeypatch):
    write_cifar100(tmp_path, *random_arrays(20, 10, shape=(3, 32, 32), num_classes=100))
    layout = dataclasses.replace(continual.datasets.cifar._CIFAR100, images_per_train_file=20)
    monkeypatch.setattr(continual.datasets.cifar, "_CIFAR100", layout)
    monkeypatch.setattr(continual.datasets.cifar, "_TEST_IMAGES", 10)
    with pytest.raises(DataError, match=r"train is damaged .*env\.dataset\.verify=false"):
        cifar100(str(tmp_path))
    assert len(cifar100(str(tmp_path), verify=False).x_train) == 20


def test_the_checksums_are_torchvision_s():
    for layout in (continual.datasets.cifar._CIFAR10, continual.datasets.cifar._CIFAR100):
        theirs = getattr(torchvision.datasets, layout.name)
        assert layout.train_md5 == dict(theirs.train_list)
        assert layout.test_md5 == dict(theirs.test_list)
        assert layout.folder == theirs.base_folder


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
    assert cifar10(str(data_dir), download=True).x_train.tolist() == arrays[0].tolist()
    assert [path.name for path in data_dir.iterdir()] == [folder.name]


def test_a_download_with_another_checksum_is_not_kept(tmp_path, monkeypatch, mirror):
    (mirror.folder / CIFAR10.filename).write_bytes(b"a page that says to log in")
    monkeypatch.setattr(CIFAR10, "url", f"{mirror.url}{CIFAR10.filename}")
    with pytest.raises(DataError, match="could not be downloaded"):
        cifar10(str(tmp_path / "data"), download=True)
    assert list((tmp_path / "data").iterdir()) == []
