"""The gathering of a batch of images as an operation of its own, which the compiler leaves whole."""

from typing import Any

import torch
from torch import Tensor

from continual.envs import image_tasks


@torch.library.custom_op("continual::images", mutates_args=())
def images(pixels: Tensor, scale: Tensor, shift: Tensor, rows: Tensor, permutation: Tensor | None) -> Tensor:
    """What `continual.envs.image_tasks.images` gives, of contiguous tensors."""
    return image_tasks.images(pixels, scale, shift, rows, permutation).contiguous()


@images.register_fake
def _(pixels: Tensor, scale: Tensor, shift: Tensor, rows: Tensor, permutation: Tensor | None) -> Tensor:
    return pixels.new_empty((len(rows), *pixels.shape[1:]), dtype=torch.float32)


@images.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    """One replica after another: a replay has one."""
    each = [
        images(*(of if dim is None else of.select(dim, r) for of, dim in zip(args, in_dims, strict=True)))
        for r in range(info.batch_size)
    ]
    return torch.stack(each) if len(each) > 1 else each[0][None], 0
