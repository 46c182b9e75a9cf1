"""A dataset in memory that processes map: it lies there once, however many workers there are.

The memory is an anonymous file of the system's (`memfd_create`). It has no name that could be left behind, it
does not depend on the size of /dev/shm, and it is freed when the last process that maps it has ended, however
that ended.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from continual.datasets.dataset import Dataset

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_ALIGNMENT = 64  # of the arrays' beginnings, in bytes


@dataclass(frozen=True)
class SharedDataset:
    """Where a process keeps a dataset for others; it can be pickled. `close` is for that process alone."""

    process: int
    descriptor: int
    places: Mapping[str, tuple[int, str, tuple[int, ...]]]  # of each array: offset, type, shape
    num_classes: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    fingerprint: str

    def open(self) -> Dataset:
        """The dataset, mapped: what writes to it gets a copy of its own.

        Raises:
            OSError: if the process that shares it has ended.
        """
        path = f"/proc/{self.process}/fd/{self.descriptor}"
        arrays = {
            name: torch.from_numpy(np.memmap(path, dtype, "c", offset, shape))
            for name, (offset, dtype, shape) in self.places.items()
        }
        dataset = Dataset(**arrays, num_classes=self.num_classes, scale=self.scale, shift=self.shift)
        vars(dataset)["fingerprint"] = self.fingerprint  # computed once for all processes
        return dataset

    def close(self) -> None:
        """Let no further process open it; it lives on where it is open."""
        os.close(self.descriptor)


def share(dataset: Dataset) -> SharedDataset | None:
    """A copy of the dataset for other processes to open.

    None where the system has no such memory (macOS), or not enough of it: each process then has its own.
    """
    if not hasattr(os, "memfd_create"):
        return None
    arrays = {name: getattr(dataset, name).contiguous().numpy() for name in _ARRAYS}
    places, size = {}, 0
    for name, array in arrays.items():
        places[name] = (size, array.dtype.str, array.shape)
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    descriptor = -1
    try:
        descriptor = os.memfd_create("continual-dataset")
        os.posix_fallocate(descriptor, 0, size)
        for name, (offset, dtype, shape) in places.items():
            np.memmap(f"/proc/self/fd/{descriptor}", dtype, "r+", offset, shape)[...] = arrays[name]
        shared = SharedDataset(
            os.getpid(),
            descriptor,
            places,
            dataset.num_classes,
            dataset.scale,
            dataset.shift,
            dataset.fingerprint,
        )
        shared.open()
    except OSError:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        return None
    return shared
