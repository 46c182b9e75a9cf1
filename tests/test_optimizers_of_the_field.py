"""AdamW and RMSprop against torch.optim; Muon, AdamO and TRAC by hand, as their authors have them."""

import pytest
import torch

from continual import random
from continual.agents.base import Base
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.mlp import MLP
from continual.optimizers import TRAC, Adam, AdamO, AdamW, Muon, RMSprop
from continual.optimizers.adam_o import gram_gradient
from continual.optimizers.muon import orthogonalised
from continual.optimizers.optimizer import OptimizerContext
from continual.optimizers.trac import erfi, tuned
from tests.agents.by_hand import close
from tests.test_optimizers import CONTEXT, STEPS, drawn, gradient


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        (AdamW(0.02, weight_decay=decay), lambda p, d=decay: torch.optim.AdamW(p, lr=0.02, weight_decay=d))
        for decay in (0.0, 0.1)
    ]
    + [
        (
            RMSprop(0.01, weight_decay=decay),
            lambda p, d=decay: torch.optim.RMSprop(p, lr=0.01, weight_decay=d),
        )
        for decay in (0.0, 0.1)
    ],
)
def test_equals_torch(optimizer, theirs) -> None:
    params = drawn(0)
    state = optimizer.init(params, CONTEXT)
    reference = {name: param.clone().requires_grad_() for name, param in params.items()}
    torch_optimizer = theirs(list(reference.values()))
    for step in range(STEPS):
        grads = gradient(params, step)
        for name, param in reference.items():
            param.grad = grads[name]
        torch_optimizer.step()
        params, state = optimizer.update(params, grads, state, CONTEXT)
        state = optimizer.prepared(state)
    for name, param in params.items():
        torch.testing.assert_close(param, reference[name].detach(), rtol=1e-4, atol=1e-5)


def test_muons_iterations_by_hand() -> None:
    matrix = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)
    close(orthogonalised(matrix, 5), [[-0.68066099, 0.82553961], [0.74129542, 0.25944003]])


def test_muon_is_refused_where_there_is_nothing_for_it() -> None:
    Muon().check({"a.weight": "hidden", "b.weight": "output"})
    with pytest.raises(ConfigError, match=r"^optimizer: muon is for hidden matrices, .*; use adamw\.$"):
        Learner.of(MLP((1, 2, 2), 3, hidden_sizes=[]), Base(), Muon())


def test_muons_first_step_by_hand_and_adam_for_all_else() -> None:
    roles = {"hidden": "hidden", "output": "output", "bias": "bias"}
    context = OptimizerContext(random.key(0), {}, roles)
    params = {"hidden": torch.zeros(3, 2), "output": torch.ones(2, 3), "bias": torch.ones(3)}
    grads = {
        "hidden": torch.tensor([[1.0, 0], [0, 2], [2, 1]]),
        "output": torch.randn(2, 3),
        "bias": torch.randn(3),
    }
    muon, adam = Muon(lr=1.0), Adam(lr=3e-4, betas=[0.9, 0.95], eps=1e-10)
    after, state = muon.update(params, grads, muon.init(params, context), context)
    step = -after["hidden"]
    expected = [[0.49652911, 0.01411656], [0.02823311, 0.99305821], [1.00717477, 0.52476222]]
    torch.testing.assert_close(step, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    others = {name: params[name] for name in ("output", "bias")}
    by_adam, _ = adam.update(others, {n: grads[n] for n in others}, adam.init(others, context), context)
    for name, param in by_adam.items():
        assert torch.equal(after[name], param)
    torch.testing.assert_close(state.slots["first_moment"]["hidden"], 0.05 * grads["hidden"])


def test_the_pull_of_adam_o_by_hand() -> None:
    close(gram_gradient(torch.tensor([[1.0, 1], [0, 2]])), [[4, 20], [8, 32]])
    close(gram_gradient(torch.tensor([[1.0, 1, 0], [0, 2, 1]])), [[4, 20, 8], [8, 40, 16]])
    roles = {"weight": "hidden", "bias": "bias", "scalar": "norm"}
    context = OptimizerContext(random.key(0), {}, roles)
    params, grads = drawn(0), drawn(1)
    pulled, plain = AdamO(lr=0.1, orthogonality=0.3), Adam(lr=0.1)
    after, _ = pulled.update(params, grads, pulled.init(params, context), context)
    without, _ = plain.update(params, grads, plain.init(params, context), context)
    assert torch.equal(after["bias"], without["bias"])
    expected = without["weight"] - 0.1 * 0.3 * gram_gradient(without["weight"])
    torch.testing.assert_close(after["weight"], expected)


def test_tracs_scale_by_hand() -> None:
    """Under steps of SGD with step size 0.1."""
    variance = torch.zeros(6, dtype=torch.float64)
    evidence, way, scales = variance + 1e-8, torch.zeros(2, dtype=torch.float64), []
    for g in ((0.5, -1.0), (0.4, -0.9), (0.3, 0.2)):
        gradient = torch.tensor(g, dtype=torch.float64)
        variance, evidence, scale = tuned(variance, evidence, way @ gradient)
        way = way - 0.1 * gradient
        scales.append(float(scale))
    assert scales == pytest.approx([1.00582270e-7, 6.0000002e-8, 5.1608327e-8], rel=1e-6)
    from scipy.special import erfi as of_scipy

    x = torch.linspace(-6, 6, 25, dtype=torch.float64)
    torch.testing.assert_close(erfi(x), torch.from_numpy(of_scipy(x.numpy())), rtol=1e-6, atol=1e-12)


def test_trac_starts_to_train() -> None:
    """Its scale grows from 1e-7 although float32 rounds such steps away; theta is theta_0 + S Delta."""
    learner = Learner.of(MLP((1, 4, 5), 5, hidden_sizes=[9]), Base(), TRAC(lr=1e-2))
    numbers: dict[str, dict[str, torch.Tensor]] = {"agent": {}, "optimizer": {}}
    state = learner.init(random.key(0), numbers)
    x, y = torch.randn(20, 1, 4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 5
    with torch.no_grad():
        for step in range(150):
            state = learner.step(state, numbers, x, y, random.key(0), torch.tensor(step))
    optimizer = state["optimizer"]
    assert optimizer.scale > 0.1
    for name, initial in state["initial"].items():
        expected = initial + (optimizer.scale * optimizer.slots["way"][name].double()).float()
        torch.testing.assert_close(state["params"][name], expected, rtol=1e-3, atol=1e-4)
