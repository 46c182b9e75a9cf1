"""MNIST and the datasets that share its file format: Fashion-MNIST, KMNIST and EMNIST.

Torchvision reads the files. They are used one by one, where torchvision's classes look for all of them at
once, so that an error names the file, and a packed file serves as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.files import DatasetFiles, check_md5, damaged, read_or_unpack

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
EMNIST_CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


def mnist(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """MNIST (LeCun et al. 1998): handwritten digits, uint8 [60000, 1, 28, 28] and [10000, 1, 28, 28].

    Reads `<data_dir>/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte`; where one of these is
    absent or damaged, the same name with .gz. With `download`, fetches them if they are absent.

    Files with any number of images are read; one with the official number must have the official MD5
    checksum, unless `verify` is false.

    Raises:
        DataError: if files are absent (and cannot be downloaded) or damaged.
    """
    return _load("MNIST", "MNIST", data_dir, download, MNIST_MD5 if verify else {}, normalise)


def fashion_mnist(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017): pictures of clothes with MNIST's format, sizes, number of classes.

    Reads `<data_dir>/FashionMNIST/raw`; else as `mnist`.
    """
    md5 = FASHION_MNIST_MD5 if verify else {}
    return _load("FashionMNIST", "Fashion-MNIST", data_dir, download, md5, normalise)


def kmnist(data_dir: str, download: bool = False, normalise: Normalise = "minus_one_to_one") -> Dataset:
    """Kuzushiji-MNIST (Clanuwat et al. 2018): cursive Japanese characters, sizes and classes as in MNIST.

    Reads `<data_dir>/KMNIST/raw`; else as `mnist`, but only what is downloaded is verified.
    """
    return _load("KMNIST", "KMNIST", data_dir, download, {}, normalise)


def emnist(
    data_dir: str,
    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = "balanced",
    download: bool = False,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """EMNIST (Cohen et al. 2017): handwritten letters and digits, uint8 [N, 1, 28, 28].

    The splits' classes, train and test images: byclass 62, 697,932 and 116,323; bymerge 47 and as many;
    balanced 47, 112,800 and 18,800; letters 26, 124,800 and 20,800; digits 10, 240,000 and 40,000;
    mnist 10, 60,000 and 10,000. Letters are counted from 0, where the files count from 1. Images are as
    they are stored, which is with rows and columns exchanged.

    Reads `<data_dir>/EMNIST/raw/emnist-<split>-{train,test}-{images-idx3,labels-idx1}-ubyte`; else as
    `mnist`, but only what is downloaded is verified (0.5 GB, all splits in one).
    """
    parts = (f"emnist-{split}-train", f"emnist-{split}-test")
    first_label = 1 if split == "letters" else 0
    return _load(
        "EMNIST", "EMNIST", data_dir, download, {}, normalise, parts, EMNIST_CLASSES[split], first_label
    )


def _load(
    name: str,
    title: str,
    data_dir: str,
    download: bool,
    md5: Mapping[str, str],
    normalise: Normalise,
    parts: tuple[str, str] = ("train", "t10k"),
    num_classes: int = 10,
    first_label: int = 0,
) -> Dataset:
    """The dataset of torchvision's class `name`; `parts` begin the names of its train and test files."""

    def fetch(folder: Path) -> None:
        import torchvision.datasets

        options = {"split": parts[0].split("-")[1]} if name == "EMNIST" else {}
        getattr(torchvision.datasets, name)(folder, download=True, **options)

    names = [f"{part}-{kind}-ubyte" for part in parts for kind in ("images-idx3", "labels-idx1")]
    files = DatasetFiles(title, Path(data_dir), f"{name}/raw", names, gz=True)
    files.require(fetch if download else None)
    tensors = {file: _read(files.path(file), md5.get(file)) for file in names}
    for part in parts:
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        if len(tensors[labels]) != len(tensors[images]):
            raise damaged(
                files.path(labels),
                f"it holds {len(tensors[labels])} labels for the {len(tensors[images])} images of {images}",
            )
        tensors[labels] -= first_label
        low, high = (int(label) for label in tensors[labels].aminmax())
        if low < 0 or high >= num_classes:
            raise damaged(
                files.path(labels),
                f"it holds labels from {low + first_label} to {high + first_label}, and they lie between "
                f"{first_label} and {num_classes - 1 + first_label}",
            )
    x_train, y_train, x_test, y_test = (tensors[file] for file in names)
    if x_test.shape[1:] != x_train.shape[1:]:
        raise damaged(files.path(names[2]), "its images have another size than the train images")
    return normalised(x_train, y_train, x_test, y_test, num_classes, normalise)


def _read(path: Path, md5: str | None) -> Tensor:
    """The images [N, 1, H, W] or the labels [N], int64, of a file."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    part = path.name.partition("-")[0]

    def parse(file: Path) -> Tensor:
        is_images = "-images-" in path.name
        try:
            tensor: Tensor = (read_image_file if is_images else read_label_file)(file)
        except Exception as error:
            raise ValueError(
                f"{file.stat().st_size} bytes that are not the idx file of a {3 if is_images else 1}-d array"
            ) from error
        if tensor.numel() == 0:
            raise ValueError(f"it holds no {'images' if is_images else 'labels'}")
        if md5 and len(tensor) == OFFICIAL_SIZES[part]:
            check_md5(file, md5)
        return tensor[:, None] if is_images else tensor

    return read_or_unpack(path, parse)
