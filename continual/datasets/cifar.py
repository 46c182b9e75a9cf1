"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from their "python version" files."""

import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalisation, normalised
from continual.datasets.files import DatasetFiles, check_md5, read

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.243, 0.261)

CifarNormalise: TypeAlias = Literal["cifar10_mean_std"] | Normalise
"""`cifar10_mean_std`: the rounded `MEAN` and `STD` of CIFAR-10 that most programs use, for CIFAR-100 too."""


def cifar10(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: CifarNormalise = "cifar10_mean_std",
) -> Dataset:
    """CIFAR-10: small photographs, uint8 [50000, 3, 32, 32] and [10000, 3, 32, 32], 10 classes.

    Torchvision reads `<data_dir>/cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}`; with
    `download`, fetches them if they are absent.

    The files are pickles, and reading a pickle can run code that it names. So they must have the official
    MD5 checksums, before they are read; with `verify` false, any files of this form are read.

    Raises:
        DataError: if files are absent (and cannot be downloaded), not the official ones, or damaged.
    """
    return _load("CIFAR10", "CIFAR-10", 10, data_dir, download, verify, normalise)


def cifar100(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: CifarNormalise = "cifar10_mean_std",
) -> Dataset:
    """CIFAR-100 with its 100 fine classes, from `<data_dir>/cifar-100-python/{train,test,meta}`.

    Else as `cifar10`.
    """
    return _load("CIFAR100", "CIFAR-100", 100, data_dir, download, verify, normalise)


def _load(
    name: str,
    title: str,
    num_classes: int,
    data_dir: str,
    download: bool,
    verify: bool,
    normalise: CifarNormalise,
) -> Dataset:
    import torchvision.datasets

    official = getattr(torchvision.datasets, name)

    def fetch(folder: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(official.url, str(folder), md5=official.tgz_md5, remove_finished=True)

    md5 = dict([*official.train_list, *official.test_list, (official.meta["filename"], official.meta["md5"])])
    files = DatasetFiles(title, Path(data_dir), official.base_folder, tuple(md5))
    files.require(fetch if download else None)
    if verify:
        for file in files.names:
            read(files.path(file), lambda path: check_md5(path, md5[path.name]))

    def split(names: list[list[str]]) -> tuple[Tensor, Tensor]:
        parts = [_read_file(official, files.path(file), num_classes) for file, _ in names]
        images, labels = (torch.cat(of_all) for of_all in zip(*parts, strict=True))
        return images, labels

    arrays = (*split(official.train_list), *split(official.test_list))
    if normalise != "cifar10_mean_std":
        return normalised(*arrays, num_classes, normalise)
    return Dataset(*arrays, num_classes, *normalisation(MEAN, STD))


def _read_file(official: Any, path: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images [n, 3, 32, 32] and labels [n] of one file, read by torchvision's class."""
    # A class for the one file, so that an error can name it, without checksums: those were checked before.
    lists = {"train_list": [[path.name, None]], "test_list": [], "meta": {**official.meta, "md5": None}}
    one_file = type("OneFile", (official,), lists)

    def parse(path: Path) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings():  # of what NumPy thinks of the pickles of Python 2
            warnings.simplefilter("ignore")
            loaded = one_file(path.parents[1])
        images, labels = loaded.data.transpose(0, 3, 1, 2), np.asarray(loaded.targets)
        if images.dtype != np.uint8 or len(images) == 0:
            raise ValueError(f"its images are {len(images)} of {images.dtype} in place of uint8")
        if labels.shape not in ((len(images),), (len(images), 1)):
            raise ValueError(f"its labels have the shape {labels.shape} for {len(images)} images")
        if labels.dtype.kind not in "iu":
            raise ValueError(f"its labels are {labels.dtype} in place of integers")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"it holds labels outside 0..{num_classes - 1}")
        return torch.from_numpy(images), torch.from_numpy(labels.reshape(-1).astype(np.int64))

    return read(path, parse)
