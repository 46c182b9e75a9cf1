"""A dataset of one's own: a NumPy .npz file with four arrays."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from continual.datasets.dataset import Dataset, normalisation
from continual.datasets.files import damaged, unreadable
from continual.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def npz(path: str) -> Dataset:
    """Images and labels from a .npz file with the arrays x_train, y_train, x_test and y_test.

    `path` is taken as it is: a relative one starts at the folder in which the program was started.
    To name a file in the data folder, write `${data_dir}/mine.npz`.

    Images are uint8 (0..255, taken to [-1, 1]) or floating point (used as they are, as float32).
    Their shape is one of
        [N, D]: becomes [N, 1, 1, D];
        [N, H, W]: becomes [N, 1, H, W];
        [N, C, H, W] or [N, H, W, C] with C 1 or 3: where both readings are possible, the first one.
    Labels are integers, [N] or [N, 1]; there are as many classes as the largest label plus 1.

    Raises:
        DataError: if the file is absent, damaged or no .npz, lacks an array, or holds arrays other
            than described. Pickled objects are never loaded.
    """
    file = Path(os.path.expanduser(path))
    with _open(file) as stream, _archive(file, stream) as arrays:
        missing = [name for name in ARRAYS if name not in arrays.files]
        if missing:
            raise DataError(
                f"{file} has no array {' and no '.join(missing)}: it must hold "
                f"{', '.join(ARRAYS)}, and it holds {', '.join(arrays.files) or 'nothing'}."
            )
        x_train, x_test = (_images(file, arrays, name) for name in ("x_train", "x_test"))
        y_train, y_test = (_labels(file, arrays, name) for name in ("y_train", "y_test"))
    num_classes = 1 + int(max(y_train.max(), y_test.max()))
    images = len(x_train) + len(x_test)
    if num_classes > images:
        raise DataError(
            f"{file} has the label {num_classes - 1} with {images} images in all: labels must be "
            "the numbers of the classes, counted from 0."
        )
    channels = x_train.shape[1]
    if x_train.dtype == torch.uint8:
        scale, shift = normalisation(mean=[0.5] * channels, std=[0.5] * channels)
    else:
        scale, shift = (1.0,) * channels, (0.0,) * channels
    try:
        return Dataset(x_train, y_train, x_test, y_test, num_classes, scale, shift)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _open(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise DataError(
            f"There is no file {file.absolute()}: env.dataset.path must name a .npz file; a "
            "relative path starts at the current folder."
        ) from None
    except OSError as error:
        raise unreadable(file, error) from error


def _archive(file: Path, stream: BinaryIO) -> NpzFile:
    try:
        arrays = np.load(stream, allow_pickle=False)
    except Exception as error:  # what a damaged file raises is not defined
        raise damaged(file, "it is no .npz file") from error
    if not isinstance(arrays, NpzFile):
        raise damaged(file, "it is a single array in place of a .npz file")
    return arrays


def _read(file: Path, arrays: NpzFile, name: str) -> npt.NDArray[np.generic]:
    try:
        array: npt.NDArray[np.generic] = arrays[name]
    except Exception as error:  # what a damaged file raises is not defined
        raise damaged(file, f"its array {name} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise damaged(file, f"its {name} is no array")
    if array.size == 0:
        raise DataError(f"{file}: {name} is empty; it must hold at least one image's data.")
    return array


def _images(file: Path, arrays: NpzFile, name: str) -> Tensor:
    """Images [N, C, H, W], uint8 or float32."""
    array = _read(file, arrays, name)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{file}: {name} must hold finite float32 numbers, without NaN or inf.")
    elif array.dtype != np.uint8:
        raise DataError(f"{file}: {name} holds {array.dtype}; it must be uint8 or floating point.")
    if array.ndim == 2:
        array = array[:, None, None, :]
    elif array.ndim == 3:
        array = array[:, None, :, :]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise DataError(
            f"{file}: {name} has the shape {array.shape}; it must be [N, D], [N, H, W], "
            "[N, C, H, W] or [N, H, W, C] with C 1 or 3."
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(file: Path, arrays: NpzFile, name: str) -> Tensor:
    """Labels [N], int64."""
    array = _read(file, arrays, name)
    if array.dtype.kind not in "iu":
        raise DataError(f"{file}: {name} holds {array.dtype}; labels must be integers.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{file}: {name} has the shape {array.shape}; it must be [N], a class number per image."
        )
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{file}: {name} holds labels below 0 or too large; they count from 0.")
    return torch.from_numpy(array.astype(np.int64))
