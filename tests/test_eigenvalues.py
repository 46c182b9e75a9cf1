import pytest
import torch
from torch.func import vmap

from continual.eigenvalues import eigenvalues, on_all_cores


def symmetric(count, rows):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, 2 * rows, rows, generator=generator, dtype=torch.float64)
    return features.mT @ features


def test_of_a_matrix():
    (matrix,) = symmetric(1, 40)
    assert torch.equal(eigenvalues(matrix), torch.linalg.eigvalsh(matrix))


@pytest.mark.parametrize("dim", [0, 2])
def test_of_a_population_at_once(monkeypatch, dim):
    matrices = symmetric(5, 40)
    solved = []
    monkeypatch.setattr(
        "continual.eigenvalues._solve", lambda m: solved.append(m) or torch.linalg.eigvalsh(m)
    )
    found = vmap(eigenvalues, in_dims=dim)(matrices.movedim(0, dim))
    assert torch.equal(found, torch.linalg.eigvalsh(matrices))
    assert [m.shape for m in solved] == [(5, 40, 40)]


@pytest.mark.parametrize("count", [1, 50])
def test_on_all_cores_they_are_the_same(count):
    matrices = symmetric(count, 40)
    assert torch.equal(on_all_cores(matrices), torch.linalg.eigvalsh(matrices))


def test_what_is_not_finite_is_an_error():
    matrices = symmetric(3, 4)
    matrices[1, 2, 3] = matrices[1, 3, 2] = torch.nan
    for solve in (vmap(eigenvalues), on_all_cores):
        with pytest.raises(RuntimeError, match="converge"):
            solve(matrices)
