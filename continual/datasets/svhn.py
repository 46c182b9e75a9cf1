"""SVHN (Netzer et al. 2011): house numbers from street views, cropped to a digit."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.files import DatasetFiles, check_md5, read

OFFICIAL_SIZES = {"train_32x32.mat": 73_257, "test_32x32.mat": 26_032}


def svhn(
    data_dir: str,
    download: bool = False,
    verify: bool = True,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """SVHN: digits in photographs, uint8 [73257, 3, 32, 32] and [26032, 3, 32, 32], 10 classes.

    Torchvision reads `<data_dir>/{train,test}_32x32.mat`; with `download`, fetches them if they are absent.
    Files with any number of images are read; one with the official number must have the official MD5
    checksum, unless `verify` is false.

    Raises:
        DataError: if files are absent (and cannot be downloaded) or damaged.
    """
    import torchvision.datasets

    official = torchvision.datasets.SVHN

    def fetch(folder: Path) -> None:
        for split in ("train", "test"):
            official(folder, split=split, download=True)

    files = DatasetFiles("SVHN", Path(data_dir), "", tuple(OFFICIAL_SIZES))
    files.require(fetch if download else None)
    md5 = {name: md5 for _, name, md5 in official.split_list.values()} if verify else {}
    train, test = (_read_file(official, files.path(name), md5.get(name)) for name in OFFICIAL_SIZES)
    return normalised(*train, *test, num_classes=10, normalise=normalise)


def _read_file(official: Any, path: Path, md5: str | None) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] and labels [N] of a file, read by torchvision's class."""
    # Without the checksum: files of another size than the official one are read too.
    one_file = type("OneFile", (official,), {"split_list": {"train": ["", path.name, None]}})

    def parse(path: Path) -> tuple[Tensor, Tensor]:
        loaded = one_file(path.parent)
        images, labels = loaded.data, loaded.labels.reshape(-1)
        if images.dtype != "uint8" or images.shape[1:] != (3, 32, 32) or len(images) == 0:
            raise ValueError(f"its images are {images.dtype} {images.shape} in place of uint8 (n, 3, 32, 32)")
        if len(labels) != len(images):
            raise ValueError(f"it holds {len(labels)} labels for {len(images)} images")
        if labels.min() < 0 or labels.max() > 9:
            raise ValueError("it holds labels outside 1..10")
        if md5 and len(images) == OFFICIAL_SIZES[path.name]:
            check_md5(path, md5)
        return torch.from_numpy(images.copy()), torch.from_numpy(labels)

    return read(path, parse)
