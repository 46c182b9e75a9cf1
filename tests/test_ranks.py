import pytest
import torch
from torch.func import grad, vmap

from continual.ranks import ranks


def test_of_each_row() -> None:
    values = torch.tensor([[0.5, -1.0, 2.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    assert ranks(values).tolist() == [[2, 0, 3, 1], [3, 2, 1, 0]]
    assert ranks(values[0]).tolist() == [2, 0, 3, 1]


def test_equal_values_have_different_ranks() -> None:
    found = ranks(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]))
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
    assert sorted(found[[1, 3]].tolist()) == [0, 1]


def test_of_a_population_and_within_a_gradient() -> None:
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    wanted = values.argsort().argsort()
    assert torch.equal(vmap(ranks)(values), wanted)
    assert torch.equal(vmap(ranks, in_dims=1)(values.T), wanted)
    loss = lambda row: (row * ranks(row.detach())).sum()  # noqa: E731
    assert torch.equal(vmap(grad(loss))(values), wanted.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_numbers_of_all_sizes(dtype: torch.dtype) -> None:
    """The sort looks at bits: signs, exponents and fractions, and what lies at their ends."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20_000, generator=generator) * 10.0 ** torch.randint(
        -40, 38, (20_000,), generator=generator
    )
    ends = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-45, -1e-45, 3.4e38, -3.4e38])
    values = torch.cat([values, ends])[torch.randperm(20_008, generator=generator)].to(dtype)
    found = ranks(values)
    assert torch.equal(found.sort().values, torch.arange(20_008))
    in_order = torch.empty_like(values).scatter_(0, found, values)
    assert torch.equal(in_order, values.sort().values)
