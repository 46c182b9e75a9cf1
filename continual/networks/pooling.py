"""Max-pooling."""

import functools

import torch
from torch import Tensor


def max_pool(h: Tensor, window: int) -> Tensor:
    """The largest entry of each window x window square of maps [..., H, W]; what is left over is left out.

    As F.max_pool2d(h, window), but that entries which are equal to the last bit share the gradient. Compiled
    for a CPU, a step of the paper's convolutional network takes three quarters of the time.
    """
    height, width = (size // window * window for size in h.shape[-2:])
    h = h[..., :height, :width]
    h = functools.reduce(torch.maximum, [h[..., i::window, :] for i in range(window)])
    return functools.reduce(torch.maximum, [h[..., i::window] for i in range(window)])
