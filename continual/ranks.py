"""The ranks of many values, which NumPy finds faster than PyTorch on a CPU with vector instructions."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


@torch.library.custom_op("continual::ranks", mutates_args=())
def ranks(values: Tensor) -> Tensor:
    """How many of the N values each of them follows when they are sorted: int64 [..., N], of [..., N].

    Equal values have different ranks, in any order. On one core, 78,400 values take NumPy 1 ms and PyTorch 7
    (2.14, AVX-512).
    """
    if values.device.type == "cpu":
        order = torch.from_numpy(np.argsort(values.numpy(), axis=-1))
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
