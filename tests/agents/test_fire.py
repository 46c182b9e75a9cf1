import pytest
import torch

from continual.agents.fire import FIRE, isometry
from tests.agents import by_hand


@pytest.mark.parametrize(
    ("weight", "iterations", "expected"),
    [
        ([[1, 2], [3, 4]], 10, [[-0.51449247, 0.85749061], [0.85749147, 0.51449678]]),
        ([[1, 2], [3, 4]], 3, [[0.06653411, 0.44803003], [0.60046281, 0.69562981]]),
        (
            [[1, 2, 2], [0, 3, 4]],
            10,
            [[0.68852834, 0.42533598, 0.10809575], [-0.31724023, 0.34342376, 0.66939183]],
        ),
    ],
)
def test_by_hand(weight, iterations, expected) -> None:
    by_hand.close(isometry(torch.tensor(weight, dtype=torch.float64), iterations), expected)


def test_every_place_of_a_kernel_is_a_matrix_of_its_own() -> None:
    kernel = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    found = isometry(kernel, 10)
    for i in range(2):
        for j in range(2):
            by_hand.close(found[:, :, i, j], isometry(kernel[:, :, i, j], 10) / 4)


def test_biases_stay_and_zero_stays_zero() -> None:
    weights = {"l.weight": torch.zeros(3, 2), "l.bias": torch.ones(3)}
    after = FIRE().start_task(by_hand.update(weights), by_hand.start([]), by_hand.context(weights)).params
    assert torch.equal(after["l.weight"], torch.zeros(3, 2))
    assert torch.equal(after["l.bias"], torch.ones(3))
