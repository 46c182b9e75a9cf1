"""Eigenvalues of many small symmetric matrices, which are found on a CPU, wherever the matrices are."""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from continual.machine import cores


@torch.library.custom_op("continual::eigenvalues", mutates_args=())
def eigenvalues(matrix: Tensor) -> Tensor:
    """The eigenvalues [N] of a symmetric matrix [N, N], smallest first, on its device.

    RuntimeError if an entry is not finite. `torch.vmap` gives the matrices of a population to `of_each`.
    """
    return of_each(matrix[None])[0]


@eigenvalues.register_vmap
def _of_a_population(info: Any, in_dims: tuple[int], matrices: Tensor) -> tuple[Tensor, int]:
    return of_each(matrices.movedim(in_dims[0], 0)), 0


def of_each(matrices: Tensor) -> Tensor:
    """The eigenvalues [R, N] of each of these matrices [R, N, N]; of those on a GPU, on all CPU cores.

    Up to 2.11, torch solves matrices of more than 32 rows on a GPU one after another, at 2 ms for 100 rows
    (github.com/pytorch/pytorch/issues/174674); a CPU core takes 0.3 ms.
    """
    if matrices.device.type == "cpu":  # and so is the population, on a core of its own
        return _solve(matrices)
    return on_all_cores(matrices.cpu()).to(matrices.device)


def on_all_cores(matrices: Tensor) -> Tensor:
    """The eigenvalues [R, N] of matrices [R, N, N] on the CPU, several at a time."""
    return torch.stack(list(_threads().map(_solve, matrices)))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # Each thread works on one core: MKL would give each a team of its own on all.
    return ThreadPoolExecutor(
        cores(), thread_name_prefix="eigenvalues", initializer=torch.set_num_threads, initargs=(1,)
    )


def _solve(matrices: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(matrices)
    return values
