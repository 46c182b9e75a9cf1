"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017), which share one file format."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from continual.datasets.dataset import Dataset, normalisation
from continual.datasets.files import DatasetFiles, damaged, read_bytes, verify_md5
from continual.datasets.idx import parse_idx

OFFICIAL_SIZES = {"train": 60_000, "t10k": 10_000}

# Of the unpacked files.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def mnist(data_dir: str, download: bool = False, verify: bool = True) -> Dataset:
    """MNIST: handwritten digits, uint8 [60000, 1, 28, 28] and [10000, 1, 28, 28], 10 classes.

    Reads `<data_dir>/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte`, or the same names
    with .gz; with `download`, fetches them if they are absent. Pixels go to [-1, 1].

    Files with any number of images are read; those that together have the official numbers must
    have the official MD5 checksums, unless `verify` is false.

    Raises:
        DataError: if files are absent (and cannot be downloaded) or damaged.
    """
    return _load("MNIST", "MNIST", MNIST_MD5, data_dir, download, verify)


def fashion_mnist(data_dir: str, download: bool = False, verify: bool = True) -> Dataset:
    """Fashion-MNIST: pictures of clothes with MNIST's format, sizes and number of classes.

    Reads `<data_dir>/FashionMNIST/raw`; else as `mnist`.
    """
    return _load("FashionMNIST", "Fashion-MNIST", FASHION_MNIST_MD5, data_dir, download, verify)


def _load(name: str, title: str, md5: dict[str, str], data_dir: str, download: bool, verify: bool) -> Dataset:
    def fetch(folder: Path) -> None:
        import torchvision.datasets

        getattr(torchvision.datasets, name)(folder, download=True)

    files = DatasetFiles(title, Path(data_dir), f"{name}/raw", tuple(md5), gz=True)
    files.require(fetch if download else None)
    contents = {file: read_bytes(files.path(file)) for file in files.names}
    splits = {split: _parse_split(files, contents, split) for split in OFFICIAL_SIZES}
    if splits["t10k"][0].shape[1:] != splits["train"][0].shape[1:]:
        path = files.path("t10k-images-idx3-ubyte")
        raise damaged(path, "its images have another size than the train images")
    if verify and all(len(splits[split][1]) == size for split, size in OFFICIAL_SIZES.items()):
        for file, content in contents.items():
            verify_md5(files.path(file), content, md5[file])
    x_train, y_train = splits["train"]
    x_test, y_test = splits["t10k"]
    scale, shift = normalisation(mean=[0.5], std=[0.5])
    return Dataset(x_train, y_train, x_test, y_test, 10, scale, shift)


def _parse_split(files: DatasetFiles, contents: dict[str, bytes], split: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, H, W] and labels [N] of "train" or "t10k"."""
    image_file, label_file = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    images = parse_idx(files.path(image_file), contents[image_file], axes=3)
    labels = parse_idx(files.path(label_file), contents[label_file], axes=1)
    if images.size == 0:
        raise damaged(files.path(image_file), "it holds no images")
    if len(labels) != len(images):
        raise damaged(
            files.path(label_file),
            f"it holds {len(labels)} labels for the {len(images)} images of {image_file}",
        )
    if labels.max() > 9:
        raise damaged(files.path(label_file), f"it holds the label {labels.max()}, above 9")
    return torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64))
