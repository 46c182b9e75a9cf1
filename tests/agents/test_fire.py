import pytest
import torch

from continual.agents.fire import FIRE, isometry
from tests.agents import by_hand
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


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


class PlainFIRE(PlainLoop):
    """What the iteration does to each singular value, place by place."""

    def start_task(self, batches: object) -> None:
        for _, param in self.weights():
            if param.ndim == 2:
                param.data.copy_(self.isometry(param.data))
            elif param.ndim == 4:
                places = param[0, 0].numel()
                for i in range(param.shape[2]):
                    for j in range(param.shape[3]):
                        param.data[:, :, i, j] = self.isometry(param.data[:, :, i, j]) / places
        if self.agent.reset_optimizer:
            self.forget()

    def isometry(self, matrix: torch.Tensor) -> torch.Tensor:
        u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
        size = sum(float(value) ** 2 for value in values) ** 0.5
        for place, value in enumerate((values / size).tolist()):
            for _ in range(self.agent.iterations):
                value = 1.5 * value - 0.5 * value**3
            values[place] = value
        outputs, inputs = matrix.shape
        return (u * values @ v * (outputs / inputs) ** 0.5).float()


@pytest.mark.parametrize(("network", "iterations"), [("mlp_with_norm", 10), ("convnet", 4)])
def test_equals_a_plain_loop(network: str, iterations: int) -> None:
    agents = [FIRE(iterations, reset_optimizer=True)] * 2
    compare(NETWORKS[network](), agents, OPTIMIZERS["sgd"], PlainFIRE, steps_per_task=75)
