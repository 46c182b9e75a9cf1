"""What every loader returns: images and labels as tensors, and how a network wants them scaled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from continual.errors import DataError


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


def normalisation(
    mean: Sequence[float], std: Sequence[float], largest: float = 255.0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift that take pixels in [0, largest] to (pixel / largest - mean) / std.

    `mean` and `std` have a number per channel; so have the two results.
    """
    scale = tuple(1.0 / (largest * s) for s in std)
    shift = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return scale, shift


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) if sizes else "()"
