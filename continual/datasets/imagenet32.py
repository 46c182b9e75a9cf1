"""ImageNet at 32x32 pixels, in the arrays of Dohare et al. (2024) for Continual ImageNet."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Le

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.files import DatasetFiles, damaged, note, unreadable

TRAIN_PER_CLASS = 600
TEST_PER_CLASS = 100
CLASS_SHAPE = (TRAIN_PER_CLASS + TEST_PER_CLASS, 3, 32, 32)


def imagenet32(
    data_dir: str,
    num_classes: Annotated[int, Ge(1), Le(1000)] = 1000,
    normalise: Normalise = "minus_one_to_one",
) -> Dataset:
    """1,000 classes of photographs: uint8 [600000, 3, 32, 32] and [100000, 3, 32, 32].

    Reads `<data_dir>/imagenet32/classes/<k>.npy` for the first `num_classes` classes k, each uint8
    [700, 3, 32, 32]: 600 train and then 100 test images. Images and labels are in the order of the
    classes. All classes take 2.2 GB of memory, 2.2 MB each.

    Raises:
        DataError: if a file is absent, damaged or holds another array.
    """
    files = DatasetFiles(
        "imagenet32",
        Path(data_dir),
        "imagenet32/classes",
        [f"{k}.npy" for k in range(num_classes)],
        source="the repository of Dohare et al. 2024, github.com/shibhansh/loss-of-plasticity",
    )
    files.require()
    x_train = np.empty((num_classes, TRAIN_PER_CLASS, *CLASS_SHAPE[1:]), np.uint8)
    x_test = np.empty((num_classes, TEST_PER_CLASS, *CLASS_SHAPE[1:]), np.uint8)
    for k, name in enumerate(files.names):
        images = _open_class(files.path(name))
        x_train[k] = images[:TRAIN_PER_CLASS]
        x_test[k] = images[TRAIN_PER_CLASS:]
    classes = torch.arange(num_classes)
    return normalised(
        x_train=torch.from_numpy(x_train).flatten(0, 1),
        y_train=classes.repeat_interleave(TRAIN_PER_CLASS),
        x_test=torch.from_numpy(x_test).flatten(0, 1),
        y_test=classes.repeat_interleave(TEST_PER_CLASS),
        num_classes=num_classes,
        normalise=normalise,
    )


def _open_class(path: Path) -> npt.NDArray[np.uint8]:
    """The array of one class, mapped from its file and not yet read."""
    note(path)
    try:
        images = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # what a damaged file raises is not defined
        raise damaged(path, str(error)) from error
    if images.dtype != np.uint8 or images.shape != CLASS_SHAPE:
        raise damaged(path, f"it holds {images.dtype} {images.shape} in place of uint8 {CLASS_SHAPE}")
    if size != images.offset + images.nbytes:
        raise damaged(path, f"it has {size} bytes in place of {images.offset + images.nbytes}")
    return images
