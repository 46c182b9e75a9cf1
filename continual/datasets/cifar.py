"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from their "python version" files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from continual.datasets.array_pickle import IntegerArray, parse_array_dict
from continual.datasets.dataset import Dataset, normalisation
from continual.datasets.files import DatasetFiles, damaged, read_bytes, verify_md5

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.243, 0.261)


@dataclass(frozen=True)
class _Layout:
    name: str  # torchvision's class
    title: str
    folder: str
    label_key: str
    num_classes: int
    images_per_train_file: int  # in the official files
    train_md5: dict[str, str]  # file name -> MD5 of the official file
    test_md5: dict[str, str]


_CIFAR10 = _Layout(
    name="CIFAR10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    label_key="labels",
    num_classes=10,
    images_per_train_file=10_000,
    train_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test_md5={"test_batch": "40351d587109b95175f43aff81a1287e"},
)

_CIFAR100 = _Layout(
    name="CIFAR100",
    title="CIFAR-100",
    folder="cifar-100-python",
    label_key="fine_labels",
    num_classes=100,
    images_per_train_file=50_000,
    train_md5={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test_md5={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)

_TEST_IMAGES = 10_000


def cifar10(data_dir: str, download: bool = False, verify: bool = True) -> Dataset:
    """CIFAR-10: small photographs, uint8 [50000, 3, 32, 32] and [10000, 3, 32, 32], 10 classes.

    Reads `<data_dir>/cifar-10-batches-py/{data_batch_1..5,test_batch}`, pickled dicts with `data`
    (uint8 [n, 3072]: all red, all green, all blue pixels) and `labels`; with `download`, fetches
    them if they are absent. Channels are normalised with `MEAN` and `STD`.

    Pickles are read without running anything they name (`array_pickle`). Files with any number of
    images are read; those that together have the official numbers must have the official MD5
    checksums, unless `verify` is false.

    Raises:
        DataError: if files are absent (and cannot be downloaded) or damaged.
    """
    return _load(_CIFAR10, data_dir, download, verify)


def cifar100(data_dir: str, download: bool = False, verify: bool = True) -> Dataset:
    """CIFAR-100 with its 100 fine classes, from `<data_dir>/cifar-100-python/{train,test}`.

    The labels are under `fine_labels`. Else as `cifar10`.
    """
    return _load(_CIFAR100, data_dir, download, verify)


def _load(layout: _Layout, data_dir: str, download: bool, verify: bool) -> Dataset:
    def fetch(folder: Path) -> None:
        import torchvision.datasets
        from torchvision.datasets.utils import download_and_extract_archive

        archive = getattr(torchvision.datasets, layout.name)
        download_and_extract_archive(archive.url, str(folder), md5=archive.tgz_md5, remove_finished=True)

    md5 = layout.train_md5 | layout.test_md5
    files = DatasetFiles(layout.title, Path(data_dir), layout.folder, tuple(md5))
    files.require(fetch if download else None)
    arrays = {file: _read_file(layout, files.path(file)) for file in files.names}
    official = dict.fromkeys(layout.train_md5, layout.images_per_train_file)
    official |= dict.fromkeys(layout.test_md5, _TEST_IMAGES)
    if verify and official == {file: len(labels) for file, (_, labels) in arrays.items()}:
        for file in files.names:
            verify_md5(files.path(file), read_bytes(files.path(file)), md5[file])
    x_train, y_train = _join([arrays[file] for file in layout.train_md5])
    x_test, y_test = _join([arrays[file] for file in layout.test_md5])
    scale, shift = normalisation(MEAN, STD)
    return Dataset(x_train, y_train, x_test, y_test, layout.num_classes, scale, shift)


def _read_file(layout: _Layout, path: Path) -> tuple[IntegerArray, IntegerArray]:
    """Images [n, 3072] and labels [n] of one file."""
    entries = parse_array_dict(path, read_bytes(path))
    images, labels = entries.get("data"), entries.get(layout.label_key)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise damaged(path, "it has no array of bytes called 'data'")
    if images.ndim != 2 or images.shape[1] != 3 * 32 * 32 or len(images) == 0:
        raise damaged(path, f"its images have the shape {images.shape} in place of (n, 3072)")
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise damaged(path, f"it has no list of integers called '{layout.label_key}'")
    if labels.shape != (len(images),):
        raise damaged(path, f"it holds {labels.size} labels for {len(images)} images")
    if labels.min() < 0 or labels.max() >= layout.num_classes:
        raise damaged(path, f"it holds labels outside 0..{layout.num_classes - 1}")
    return images, labels


def _join(parts: list[tuple[IntegerArray, IntegerArray]]) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] and labels [N] of the files together."""
    images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)
