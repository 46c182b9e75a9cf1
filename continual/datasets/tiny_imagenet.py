"""Tiny-ImageNet (Le & Yang 2015), from its folders of JPEG files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.files import DatasetFiles, damaged, read

FOLDER = "tiny-imagenet-200"
SIZE = 64


def tiny_imagenet(data_dir: str, normalise: Normalise = "minus_one_to_one") -> Dataset:
    """200 classes of photographs: uint8 [100000, 3, 64, 64] and [10000, 3, 64, 64]; 1.4 GB of memory.

    Reads `<data_dir>/tiny-imagenet-200/train/<wnid>/images/*.JPEG`, and for testing the validation images,
    `val/images/*.JPEG` with `val/val_annotations.txt` (the test images have no labels). Classes are
    numbered in the order of their names; grey images become coloured ones.

    Raises:
        DataError: if files are absent or damaged.
    """
    files = DatasetFiles(
        "Tiny-ImageNet",
        Path(data_dir),
        FOLDER,
        ["wnids.txt", "val/val_annotations.txt"],
        source="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    )
    files.require()
    wnids = sorted(read(files.path("wnids.txt"), _lines))
    number = {wnid: k for k, wnid in enumerate(wnids)}
    folders = {wnid: files.path(f"train/{wnid}/images") for wnid in wnids}
    train = [(path, number[wnid]) for wnid, folder in folders.items() for path in _images_of(folder)]
    test = read(files.path("val/val_annotations.txt"), lambda path: _annotated(path, number))
    (x_train, y_train), (x_test, y_test) = _load(train), _load(test)
    return normalised(x_train, y_train, x_test, y_test, len(wnids), normalise)


def _lines(path: Path) -> list[str]:
    lines = path.read_text().split()
    if not lines:
        raise ValueError("it is empty")
    return lines


def _images_of(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.JPEG"))
    if not found:
        raise damaged(folder, "it holds no .JPEG files" if folder.is_dir() else "there is no such folder")
    return found


def _annotated(path: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    """The validation images and their classes: lines of a file's name, its class's and a box."""
    found = []
    for line in path.read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        if wnid not in number:
            raise ValueError(f"it names the class {wnid}, which wnids.txt does not")
        found.append((path.parent / "images" / name, number[wnid]))
    if not found:
        raise ValueError("it is empty")
    return found


def _load(images: Sequence[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    pixels = np.empty((len(images), 3, SIZE, SIZE), np.uint8)

    def decode(place: int) -> None:
        pixels[place] = read(images[place][0], _decode)

    with ThreadPoolExecutor() as threads:
        for _ in threads.map(decode, range(len(images))):
            pass
    return torch.from_numpy(pixels), torch.tensor([label for _, label in images])


def _decode(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        if image.size != (SIZE, SIZE):
            raise ValueError(f"an image of {image.size[0]}x{image.size[1]} in place of {SIZE}x{SIZE} pixels")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
