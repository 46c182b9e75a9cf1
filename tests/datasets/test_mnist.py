import hashlib
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

import continual.datasets.mnist
from continual.datasets.files import DOWNLOAD_TIMEOUT
from continual.datasets.mnist import (
    EMNIST_CLASSES,
    FASHION_MNIST_MD5,
    MNIST_MD5,
    emnist,
    fashion_mnist,
    kmnist,
    mnist,
)
from continual.errors import DataError
from tests.datasets.writers import random_arrays, write_emnist, write_idx, write_mnist

LOADERS = [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST"), (kmnist, "KMNIST")]


def assert_holds(dataset, x_train, y_train, x_test, y_test):
    for name, array in (
        ("x_train", x_train),
        ("y_train", y_train),
        ("x_test", x_test),
        ("y_test", y_test),
    ):
        torch.testing.assert_close(getattr(dataset, name), torch.as_tensor(array), rtol=0, atol=0)


@pytest.mark.parametrize(("load", "name", "gz"), [(*LOADERS[0], False), *((*one, True) for one in LOADERS)])
def test_files_are_read_as_they_are(tmp_path, load, name, gz):
    arrays = random_arrays(train=30, test=20, shape=(1, 28, 27))
    write_mnist(tmp_path, *arrays, name=name, gz=gz)
    dataset = load(str(tmp_path))
    assert_holds(dataset, *arrays)
    assert dataset.num_classes == 10
    assert dataset.scale == pytest.approx((2 / 255,))
    assert dataset.shift == (-1.0,)


def test_an_unpacked_file_goes_before_its_gz(tmp_path):
    arrays = random_arrays(train=30, test=20)
    raw = write_mnist(tmp_path, *arrays)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.zeros(20), gz=True)
    assert_holds(mnist(str(tmp_path)), *arrays)


@pytest.mark.parametrize(("load", "name"), LOADERS)
def test_absent_files_are_named_with_folder_and_ways_out(tmp_path, monkeypatch, load, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load("data")
    message = str(caught.value)
    for part in (str(tmp_path / "data" / name / "raw"), *MNIST_MD5):
        assert part in message
    for way_out in ("CONTINUAL_DATA_DIR", "data_dir=", "env.dataset.download=true"):
        assert way_out in message
    assert "\n" not in message
    assert not (tmp_path / "data").exists()


def test_only_what_is_absent_is_named(tmp_path):
    raw = write_mnist(tmp_path, *random_arrays(train=3, test=2))
    (raw / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks train-labels-idx1-ubyte"):
        mnist(str(tmp_path))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damage", "why"),
    [
        (IMAGES, lambda content: content[:-1], "23535 bytes that are not the idx file of a 3-d array"),
        (IMAGES, lambda content: content + b"\0", "23537 bytes"),
        (IMAGES, lambda content: content[:9], "9 bytes"),
        (IMAGES, lambda content: b"", "0 bytes"),
        (IMAGES, lambda content: b"<html>404", "9 bytes"),
        (IMAGES, lambda content: b"\0\0\x09\x03" + content[4:], "23536 bytes that are not"),
        (LABELS, lambda content: b"\0\0\x08\x03" + content[4:], "38 bytes that are not"),
        (LABELS, lambda content: content[:4] + bytes([0, 0, 0, 29]) + content[9:], "29 labels for"),
        (LABELS, lambda content: content[:-1] + b"\x0a", "labels from 0 to 10, and they lie between 0 and 9"),
        (IMAGES, lambda content: content[:4] + bytes(12), "16 bytes that are not"),
    ],
)
def test_damaged_files_are_refused(tmp_path, file, damage, why):
    raw = write_mnist(tmp_path, *random_arrays(train=30, test=20))
    (raw / file).write_bytes(damage((raw / file).read_bytes()))
    with pytest.raises(DataError, match=why) as caught:
        mnist(str(tmp_path))
    assert str(raw / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: b"no gzip", lambda content: b""]
)
def test_damaged_gz_files_are_refused(tmp_path, damage):
    raw = write_mnist(tmp_path, *random_arrays(train=30, test=20), gz=True)
    file = raw / f"{IMAGES}.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="damaged") as caught:
        mnist(str(tmp_path))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("state", ["partial", "a folder"])
def test_a_gz_serves_where_the_file_is_no_good(tmp_path, state):
    arrays = random_arrays(train=30, test=20)
    raw = write_mnist(tmp_path, *arrays, gz=True)
    for file in (IMAGES, LABELS):
        if state == "partial":
            (raw / file).write_bytes(b"\0\0\x08")
        else:
            (raw / file).mkdir()
    assert_holds(mnist(str(tmp_path)), *arrays)


def test_of_two_damaged_files_the_unpacked_one_is_named(tmp_path):
    raw = write_mnist(tmp_path, *random_arrays(train=30, test=20))
    (raw / IMAGES).write_bytes(b"")
    (raw / f"{IMAGES}.gz").write_bytes(b"")
    with pytest.raises(DataError, match=f"{IMAGES} is damaged"):
        mnist(str(tmp_path))


def test_what_is_there_in_place_of_the_files_is_named(tmp_path):
    raw = write_mnist(tmp_path, *random_arrays(train=3, test=2))
    for file in MNIST_MD5:
        (raw / file).rename(raw / file.replace("-idx", ".idx"))
    with pytest.raises(DataError, match=r"\(it holds t10k-images\.idx3-ubyte, t10k-labels\.idx1-ubyte, "):
        mnist(str(tmp_path))


@pytest.mark.parametrize("split", EMNIST_CLASSES)
@pytest.mark.parametrize("gz", [False, True])
def test_every_split_of_emnist(tmp_path, split, gz):
    num_classes = EMNIST_CLASSES[split]
    arrays = random_arrays(train=2 * num_classes, test=20, num_classes=num_classes)
    write_emnist(tmp_path, *arrays, split=split, gz=gz)
    dataset = emnist(str(tmp_path), split)
    assert_holds(dataset, *arrays)
    assert dataset.num_classes == num_classes


def test_a_letter_counted_from_0_is_refused(tmp_path):
    x_train, y_train, x_test, y_test = random_arrays(3, 3)
    write_emnist(tmp_path, x_train, y_train - 1, x_test, y_test - 1, split="letters")
    with pytest.raises(DataError, match="labels from 0 to 2, and they lie between 1 and 26"):
        emnist(str(tmp_path), "letters")


def test_train_and_test_images_of_different_size_are_refused(tmp_path):
    x_train, y_train, _, _ = random_arrays(train=30, test=20)
    _, _, x_test, y_test = random_arrays(train=30, test=20, shape=(1, 8, 8))
    write_mnist(tmp_path, x_train, y_train, x_test, y_test)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte .* another size"):
        mnist(str(tmp_path))


def test_files_with_the_official_numbers_of_images_must_be_the_official_ones(tmp_path, monkeypatch):
    write_mnist(tmp_path, *random_arrays(train=30, test=20))
    monkeypatch.setattr(continual.datasets.mnist, "OFFICIAL_SIZES", {"train": 30, "t10k": 20})
    with pytest.raises(DataError, match=r"images-idx3-ubyte is damaged .*env\.dataset\.verify"):
        mnist(str(tmp_path))
    assert len(mnist(str(tmp_path), verify=False).x_train) == 30


@pytest.mark.parametrize(("load", "name"), LOADERS)
def test_download_without_a_network_is_explained(tmp_path, no_network, load, name):
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load(str(tmp_path / "data"), download=True)
    message = str(caught.value)
    for part in (
        str(tmp_path / "data" / name / "raw"),
        "CONTINUAL_DATA_DIR",
        "data_dir=",
        *MNIST_MD5,
    ):
        assert part in message
    assert "\n" not in message
    assert list((tmp_path / "data").iterdir()) == []


def test_download_fetches_what_is_absent_once(tmp_path, monkeypatch, mirror):
    arrays = random_arrays(train=30, test=20)
    files = sorted(write_mnist(tmp_path / "original", *arrays, gz=True).iterdir())
    for file in files:
        shutil.copy(file, mirror.folder)
    md5 = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in files]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror.url])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", md5)
    data_dir = tmp_path / "data"

    assert_holds(mnist(str(data_dir), download=True), *arrays)
    assert set(mirror.requests) == {f"/{file.name}" for file in files}
    assert mirror.timeouts == {DOWNLOAD_TIMEOUT}
    assert socket.getdefaulttimeout() is None
    assert [path.name for path in data_dir.iterdir()] == ["MNIST"]

    mirror.requests.clear()
    assert_holds(mnist(str(data_dir), download=True), *arrays)
    assert mirror.requests == []


def test_the_real_mnist(real_data_dir):
    dataset = mnist(real_data_dir)
    assert dataset.x_train.shape == (60_000, 1, 28, 28)
    assert dataset.x_test.shape == (10_000, 1, 28, 28)
    assert dataset.x_train.dtype == torch.uint8
    assert dataset.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    # The published mean and deviation of the pixels.
    assert float(dataset.x_train.float().mean()) / 255 == pytest.approx(0.1307, abs=1e-4)
    assert float(dataset.x_train.float().std()) / 255 == pytest.approx(0.3081, abs=1e-4)


def test_one_flipped_bit_of_the_real_mnist_is_noticed(real_data_dir, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    real = Path(real_data_dir) / "MNIST" / "raw"
    for name in MNIST_MD5:
        if not (real / name).exists():
            pytest.skip("needs the unpacked files of the real MNIST")
        (raw / name).symlink_to((real / name).resolve())
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.unlink()
    shutil.copyfile(real / labels.name, labels)
    content = bytearray(labels.read_bytes())
    content[5000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged"):
        mnist(str(tmp_path))


def test_the_real_fashion_mnist(real_data_dir):
    if not (Path(real_data_dir) / "FashionMNIST" / "raw").is_dir():
        pytest.skip("needs the real Fashion-MNIST: CONTINUAL_DATA_DIR has no FashionMNIST/raw")
    dataset = fashion_mnist(real_data_dir)
    assert dataset.x_train.shape == (60_000, 1, 28, 28)
    assert dataset.y_train[:5].tolist() == [9, 0, 0, 3, 0]
    assert dataset.y_train.bincount().tolist() == [6000] * 10


def test_the_two_sets_are_told_apart():
    assert not set(MNIST_MD5.values()) & set(FASHION_MNIST_MD5.values())
