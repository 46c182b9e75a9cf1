"""Ways to convolve the images of each of many replicas with weights of its own, and how long they take."""

import time
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from benchmarking.contender import pin, wait_for
from continual.stepping import CudaGraphs, Stepper

# From images [R, B, C, H, W] and weights [R, O, C, K, K] to maps [R, B, O, H', W'].
Way: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# The paper's network: image, kernel, channels in and out of its two convolutions; images in a batch.
_LAYERS = ((32, 5, 3, 16), (14, 5, 16, 16))
_BATCH = 32

_STEPS_TO_WARM_UP = 5  # on a GPU, the capture is among them


def grouped(x_RBCHW: Tensor, w_ROCKK: Tensor) -> Tensor:
    """What vmap makes of a convolution, and what populations do: one with a group for each replica."""
    y_RBOHW: Tensor = vmap(F.conv2d)(x_RBCHW, w_ROCKK)
    return y_RBOHW


def grouped_channels_last(x_RBCHW: Tensor, w_ROCKK: Tensor) -> Tensor:
    """The same, with channels innermost in memory."""
    R, B, C, H, W = x_RBCHW.shape
    x = x_RBCHW.transpose(0, 1).reshape(B, R * C, H, W).contiguous(memory_format=torch.channels_last)
    w = w_ROCKK.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x, w, groups=R)
    return y.reshape(B, R, -1, *y.shape[2:]).transpose(0, 1)


def unfolded(x_RBCHW: Tensor, w_ROCKK: Tensor) -> Tensor:
    """Patches times weights, as one batched product of matrices."""
    R, B, _, H, W = x_RBCHW.shape
    O, K = w_ROCKK.shape[1], w_ROCKK.shape[-1]  # noqa: E741
    patches = F.unfold(x_RBCHW.flatten(0, 1), K)
    y_RBOL = w_ROCKK.flatten(2)[:, None] @ patches.reshape(R, B, *patches.shape[1:])
    return y_RBOL.reshape(R, B, O, H - K + 1, W - K + 1)


def one_by_one(x_RBCHW: Tensor, w_ROCKK: Tensor) -> Tensor:
    """A convolution for each replica, one after the other."""
    return torch.stack([F.conv2d(x, w) for x, w in zip(x_RBCHW, w_ROCKK, strict=True)])


WAYS: dict[str, Way] = {
    "grouped, as in populations": grouped,
    "grouped, channels last": grouped_channels_last,
    "unfolded": unfolded,
    "one by one": one_by_one,
}


def milliseconds(way: Way, replicas: int, where: torch.device, repeats: int) -> float:
    """The time for both convolutions, forwards and backwards; the best of some repeats.

    On a GPU as replayed from a CUDA graph, on a CPU with one thread, as a population's steps are.
    """
    if where.type == "cpu":
        torch.set_num_threads(1)
        pin(0)
    tensors = [
        (
            torch.randn(replicas, _BATCH, channels, size, size, device=where, requires_grad=i > 0),
            torch.randn(replicas, out, channels, kernel, kernel, device=where, requires_grad=True),
        )
        for i, (size, kernel, channels, out) in enumerate(_LAYERS)
    ]

    def both(layers: list[tuple[Tensor, Tensor]]) -> None:
        for x, w in layers:
            wanted = [tensor for tensor in (x, w) if tensor.requires_grad]
            torch.autograd.grad(way(x, w).square().sum(), wanted)

    capture = CudaGraphs() if where.type == "cuda" else None
    stepper = Stepper(both, (tensors,), compiled=False, capture=capture)
    stepper.run(_STEPS_TO_WARM_UP)
    times = []
    for _ in range(repeats):
        wait_for(where)
        start = time.perf_counter()
        stepper.run(1)
        wait_for(where)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
