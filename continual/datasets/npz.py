"""A dataset of one's own: a NumPy .npz file with four arrays."""

import itertools
import os
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from continual.datasets.dataset import Dataset, Normalise, normalised
from continual.datasets.files import damaged, note, unreadable
from continual.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def npz(path: str, normalise: Literal["auto"] | Normalise = "auto") -> Dataset:
    """Images and labels from a .npz file with the arrays x_train, y_train, x_test and y_test.

    `path` is taken as it is: a relative one starts at the folder in which the program was started.
    To name a file in the data folder, write `${data_dir}/mine.npz`.

    Images are uint8 or floating point. With `normalise` "auto", uint8 (0..255) is taken to [-1, 1], and
    floating point is used as it is, as float32; images of 16 bits and more are refused then, because nothing
    says what their range is. With another choice, whole numbers may be of any type. Their shape is one of
        [N, D]: becomes [N, 1, 1, D];
        [N, H, W]: becomes [N, 1, H, W];
        [N, C, H, W] or [N, H, W, C] with C 1 or 3: where both readings are possible, the first one.
    Labels are integers, [N] or [N, 1], that count the classes from 0; each class has a training image.

    Raises:
        DataError: if the file is absent, damaged or no .npz, lacks an array, or holds arrays other
            than described, or of a scale from which nothing is learnt. Pickled objects are never loaded.
    """
    file = Path(os.path.expanduser(path))
    with _open(file) as stream, _archive(file, stream) as arrays:
        missing = [name for name in ARRAYS if name not in arrays.files]
        if missing:
            raise DataError(
                f"{file} has no array {' and no '.join(missing)}: it must hold "
                f"{', '.join(ARRAYS)}, and it holds {', '.join(arrays.files) or 'nothing'}."
            )
        x_train, x_test = (_images(file, arrays, name, normalise) for name in ("x_train", "x_test"))
        y_train, y_test = (_labels(file, arrays, name) for name in ("y_train", "y_test"))
    num_classes = 1 + int(max(y_train.max(), y_test.max()))
    try:
        dataset = normalised(x_train, y_train, x_test, y_test, num_classes, normalise)
        _check_classes(dataset)
        return dataset
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _check_classes(dataset: Dataset) -> None:
    """DataError, naming them, if there are labels up to the largest without a training image."""
    num_classes = dataset.num_classes
    have = set(dataset.y_train.tolist())
    if len(have) == num_classes:
        return
    absent = list(itertools.islice((label for label in range(num_classes) if label not in have), 6))
    more = num_classes - len(have) - len(absent)
    raise DataError(
        f"y_train has labels from {min(have)} to {max(have)}, y_test from {dataset.y_test.min()} to "
        f"{dataset.y_test.max()}, and no training image has the label {', '.join(map(str, absent))}"
        + (f" and {more} more" if more else "")
        + ": labels must count the classes from 0 without a gap; np.unique(labels, return_inverse=True)[1] "
        "renumbers them."
    )


def _open(file: Path) -> BinaryIO:
    note(file)
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
        _refuse_objects(arrays, name)
        array: npt.NDArray[np.generic] = arrays[name]
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except Exception as error:  # what a damaged file raises is not defined
        raise damaged(file, f"its array {name} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise damaged(file, f"its {name} is no array")
    if array.size == 0:
        raise DataError(f"{file}: {name} is empty; it must hold at least one image's data.")
    return array


def _refuse_objects(arrays: NpzFile, name: str) -> None:
    """DataError if an array is of Python objects, which only unpickling could read."""
    assert arrays.zip is not None  # it is, until the file is closed
    with arrays.zip.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        _, _, dtype = read_header.get(version[0], np.lib.format.read_array_header_2_0)(stream)
    if dtype.hasobject:
        kind = "labels" if name.startswith("y") else "images"
        types = "integers" if kind == "labels" else "uint8 or floating point"
        raise DataError(f"the {kind} in {name} are Python objects: save them as {types}.")


def _images(file: Path, arrays: NpzFile, name: str, normalise: str) -> Tensor:
    """Images [N, C, H, W], uint8 or float32."""
    array = _read(file, arrays, name)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        if normalise == "auto":
            raise DataError(
                f"{file}: {name} holds {array.dtype} with values from {array.min()} to {array.max()}, and "
                "nothing says what their range is: save bytes as uint8, or set env.dataset.normalise to "
                "minus_one_to_one, zero_to_one, mean_std or raw."
            )
        array = array.astype(np.float32)
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
