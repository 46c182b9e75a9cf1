"""What every loader returns: images and labels as tensors, and how a network wants them scaled."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from continual.errors import DataError

Normalise: TypeAlias = Literal["minus_one_to_one", "zero_to_one", "mean_std", "raw"]
"""How pixels become inputs: the range of pixels taken to [-1, 1] or to [0, 1]; mean 0 and deviation 1 in each
channel, over the training images; or as they are stored."""

# Values outside of these are taken for images of an unexpected scale (`_check_scale`).
_LARGEST_INPUT = 100.0
_SMALLEST_SPREAD = 0.1
_FEWEST_GREY_LEVELS = 64
_IMAGES_AT_A_TIME = 1000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train and test images with their labels, on the CPU, as stored: not yet scaled.

    A network's input is `image * scale + shift`, channel by channel. The checks made at
    construction are cheap: types, shapes, lengths, the range of the labels.

    Raises:
        DataError: if the arrays do not fit together as described below.
    """

    x_train: Tensor  # uint8 or float32 [N, C, H, W]
    y_train: Tensor  # int64 [N], 0 <= label < num_classes
    x_test: Tensor  # [M, C, H, W], same type as x_train
    y_test: Tensor  # int64 [M], 0 <= label < num_classes
    num_classes: int
    scale: tuple[float, ...]  # length C
    shift: tuple[float, ...]  # length C

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise DataError(f"num_classes is {self.num_classes}: it must be at least 1.")
        for name in ("train", "test"):
            self._check_images(f"x_{name}")
            self._check_labels(f"y_{name}", images=len(getattr(self, f"x_{name}")))
        if self.x_train.dtype != self.x_test.dtype:
            raise DataError(
                f"x_train holds {_name(self.x_train.dtype)} and x_test {_name(self.x_test.dtype)}: "
                "both must have the same type."
            )
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"x_train has images of shape {_shape(self.x_train.shape[1:])} and x_test of "
                f"{_shape(self.x_test.shape[1:])}: both must have the same shape."
            )
        for name in ("scale", "shift"):
            numbers: tuple[float, ...] = getattr(self, name)
            if len(numbers) != self.input_shape[0] or not all(map(math.isfinite, numbers)):
                raise DataError(
                    f"{name} is {numbers}: it must hold a finite number for each of the "
                    f"{self.input_shape[0]} channels."
                )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.x_train.shape
        return channels, height, width

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the images, the labels and the number of classes.

        Two datasets with one fingerprint hold the same arrays: types, shapes and values, train and test.
        How they are normalised does not count: the config says it. It is computed once; 60,000 images
        of MNIST take 0.05 s, and 2.2 GB about 2 s.
        """
        digest = hashlib.sha256(f"classes {self.num_classes}".encode())
        for name in ("x_train", "y_train", "x_test", "y_test"):
            array = getattr(self, name).cpu().contiguous().numpy()
            digest.update(f"; {name} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.data)
        return digest.hexdigest()[:16]

    def _check_images(self, name: str) -> None:
        x: Tensor = getattr(self, name)
        if x.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"{name} holds {_name(x.dtype)}: it must be uint8 or float32.")
        if x.ndim != 4 or 0 in x.shape:
            raise DataError(
                f"{name} has the shape {_shape(x.shape)}: it must be images x channels x height "
                "x width, none of them 0."
            )

    def _check_labels(self, name: str, images: int) -> None:
        y: Tensor = getattr(self, name)
        if y.dtype != torch.int64:
            raise DataError(f"{name} holds {_name(y.dtype)}: it must be int64.")
        if y.shape != (images,):
            raise DataError(
                f"{name} has the shape {_shape(y.shape)}: it must hold one label for each of the "
                f"{images} images."
            )
        low, high = (int(label) for label in y.aminmax())
        if low < 0 or high >= self.num_classes:
            raise DataError(
                f"{name} has labels from {low} to {high}: they must lie between 0 and {self.num_classes - 1}."
            )


def normalised(
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    num_classes: int,
    normalise: Normalise | Literal["auto"],
    largest: float | None = None,
) -> Dataset:
    """The dataset of these arrays, normalised as `normalise` says.

    Pixels lie in [0, `largest`]; without it in [0, 255] if they are uint8, and in the range of the training
    images if they are not. "auto" takes uint8 to [-1, 1], and leaves other images as they are.

    Raises:
        DataError: if the arrays do not fit together, or if their values are so large, so small or so
            different between train and test that a network would learn nothing from them; what was
            asked for by "raw" may be of any size.
    """
    channels = x_train.shape[1] if x_train.ndim == 4 else 1
    identity = (1.0,) * channels, (0.0,) * channels
    # Made first for its checks: tensors of another type or shape may have no range.
    stored = Dataset(x_train, y_train, x_test, y_test, num_classes, *identity)
    is_bytes = x_train.dtype == torch.uint8
    _check_scale(stored, normalise, is_bytes and largest is None)
    if normalise == "raw" or (normalise == "auto" and not is_bytes):
        return stored
    if normalise == "mean_std":
        scale, shift = normalisation(*moments(x_train), largest=1.0)
    else:
        low, high = (0.0, largest or 255.0) if largest or is_bytes else _range(x_train)
        zero, unit = (low, high - low) if normalise == "zero_to_one" else ((low + high) / 2, (high - low) / 2)
        scale, shift = (1 / (unit or 1.0),) * channels, (-zero / (unit or 1.0),) * channels
    return dataclasses.replace(stored, scale=scale, shift=shift)


def normalisation(
    mean: Sequence[float], std: Sequence[float], largest: float = 255.0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift that take pixels in [0, largest] to (pixel / largest - mean) / std.

    `mean` and `std` have a number per channel; so have the two results.
    """
    scale = tuple(1.0 / (largest * s) for s in std)
    shift = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return scale, shift


def moments(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images [N, C, H, W]; a constant one has deviation 1."""
    total, squares = (torch.zeros(x.shape[1], dtype=torch.float64) for _ in range(2))
    for start in range(0, len(x), _IMAGES_AT_A_TIME):
        some = x[start : start + _IMAGES_AT_A_TIME]
        total += some.double().sum((0, 2, 3))
        squares += some.double().square().sum((0, 2, 3))
    count = x.numel() / x.shape[1]
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())


def _check_scale(stored: Dataset, normalise: str, is_bytes: bool) -> None:
    """DataError if the images have values from which a network would learn nothing."""
    ranges = {name: _range(getattr(stored, name)) for name in ("x_train", "x_test")}
    spread = {name: high - low for name, (low, high) in ranges.items()}
    values = {name: f"{name} holds values from {r[0]:.6g} to {r[1]:.6g}" for name, r in ranges.items()}
    if all(spread.values()) and not 1 / 20 <= spread["x_train"] / spread["x_test"] <= 20:
        raise DataError(f"{values['x_train']} and {values['x_test']}: both must have the same scale.")
    if normalise in ("raw", "mean_std"):
        return
    for name, (low, high) in ranges.items():
        if is_bytes and 0 < spread[name] < _FEWEST_GREY_LEVELS:
            raise DataError(
                f"{values[name]}, a small part of the range 0 to 255 of uint8 images: set "
                "env.dataset.normalise=mean_std to scale them, or =raw to use them as they are."
            )
        is_small, is_large = 0 < spread[name] < _SMALLEST_SPREAD, max(-low, high) > _LARGEST_INPUT
        if normalise == "auto" and stored.x_train.dtype != torch.uint8 and (is_small or is_large):
            raise DataError(
                f"{values[name]}, too {'large' if is_large else 'small'} for inputs of a network: set "
                "env.dataset.normalise=minus_one_to_one, zero_to_one or mean_std to scale them, or =raw to "
                "use them as they are."
            )


def _range(x: Tensor) -> tuple[float, float]:
    low, high = x.aminmax()
    return float(low), float(high)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) if sizes else "()"
