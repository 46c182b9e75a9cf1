"""Products of small matrices: right in every layout, and the same for an entry whatever is around it."""

import ctypes

import pytest
import torch

from continual.cpu.library import library
from continual.cpu.recording import Product
from continual.cpu.replay import steps_of


def multiply(a, b, c):
    """C = A B by the native code, for matrices [rows, depth] and [depth, columns]."""
    steps = [step[1:] for step in steps_of(Product(a[None], b[None], c[None]))]
    numbers = [len(a), b.shape[1], b.shape[0], *(s for step in steps for s in step)]
    shape = torch.tensor(numbers, dtype=torch.int64)
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (a, b, c, shape)]
    assert library().one_product(*addresses) == 0


def matrix(rows, columns, transposed=False, offset=0):
    """Normal numbers in rows of neighbours, or columns; beginning anywhere in memory."""
    values = torch.randn(rows * columns + offset)[offset:]
    return values.reshape(columns, rows).t() if transposed else values.reshape(rows, columns)


SIZES = [(1, 1, 1), (16, 784, 100), (7, 20, 9), (3, 17, 33), (5, 100, 10), (2, 2500, 4), (31, 1, 97)]
LAYOUTS = {
    "x times w transposed": (False, True, False),
    "g times w": (False, False, False),
    "g transposed times x": (True, False, False),
    "into columns": (True, True, True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
@pytest.mark.parametrize("offset", [0, 1])
def test_it_is_the_product(rows, depth, columns, layout, offset):
    torch.manual_seed(rows + depth)
    of_a, of_b, of_c = LAYOUTS[layout]
    a, b = matrix(rows, depth, of_a, offset), matrix(depth, columns, of_b, offset)
    around = torch.full((rows * columns + 32,), 7.0)
    c = around[16 : 16 + rows * columns]
    c = c.reshape(columns, rows).t() if of_c else c.reshape(rows, columns)
    multiply(a, b, c)
    exact = a.double() @ b.double()
    assert float((c - exact).abs().max()) <= 3e-7 * depth**0.5 * (1 + float(exact.abs().max()))
    assert (around[:16] == 7).all()
    assert (around[16 + rows * columns :] == 7).all(), "nothing is written beside the product"


@pytest.mark.parametrize("layout", ["x times w transposed", "g times w", "g transposed times x"])
def test_an_entry_does_not_depend_on_those_around_it(layout):
    of_a, of_b, _ = LAYOUTS[layout]
    a, b = matrix(13, 1100, of_a), matrix(1100, 77, of_b)
    whole, part = torch.empty(13, 77), torch.empty(6, 21)
    multiply(a, b, whole)
    inner_b = b[:, 40:61].t().contiguous().t() if of_b else b[:, 40:61].contiguous()
    multiply(a[5:11].contiguous() if not of_a else a[5:11].t().contiguous().t(), inner_b, part)
    assert torch.equal(whole[5:11, 40:61], part)
