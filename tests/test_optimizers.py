import inspect

import pytest
import torch
from torch.func import vmap

from continual import random
from continual.optimizers import SGD, Adam
from continual.optimizers.optimizer import OptimizerContext
from continual.schema import bind
from continual.tree import leaves

SHAPES = {"weight": (5, 3), "bias": (5,), "scalar": ()}
STEPS = 60
CONTEXT = OptimizerContext(random.key(0), {}, {})

SETTINGS = [
    *(
        (
            SGD,
            torch.optim.SGD,
            {"lr": 0.05, "momentum": momentum, "weight_decay": decay, "nesterov": nesterov},
        )
        for momentum in (0.0, 0.9)
        for decay in (0.0, 0.03)
        for nesterov in (False, True)
        if momentum or not nesterov
    ),
    *(
        (Adam, torch.optim.Adam, {"lr": 0.02, "betas": betas, "eps": eps, "weight_decay": decay})
        for betas in ([0.9, 0.999], [0.5, 0.9], [0.0, 0.99], [0.9, 0.5])
        for eps in (1e-8, 0.1)
        for decay in (0.0, 0.03)
    ),
]


def ids(value):
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value.__name__


def drawn(*seed):
    """A tensor for each parameter, the same for the same seed."""
    generator = torch.Generator().manual_seed(hash(seed) % 2**31)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def gradient(params, step):
    """Of a bowl around 1, with noise; some steps have no gradient at all."""
    noise = drawn(1, step)
    return {
        name: 0 * noise[name] if step in (10, 11) else param - 1 + noise[name]
        for name, param in params.items()
    }


@pytest.mark.parametrize(("ours", "theirs", "settings"), SETTINGS, ids=ids)
def test_every_setting_equals_torch(ours, theirs, settings):
    optimizer = ours(**settings)
    params = drawn(0)
    state = optimizer.init(params, CONTEXT)
    reference = {name: param.clone().requires_grad_() for name, param in params.items()}
    torch_optimizer = theirs(list(reference.values()), **settings)
    for step in range(STEPS):
        grads = gradient(params, step)
        for name, param in reference.items():
            param.grad = grads[name]
        torch_optimizer.step()
        params, state = optimizer.update(params, grads, state, CONTEXT)
        state = optimizer.prepared(state)
    for name, param in params.items():
        torch.testing.assert_close(param, reference[name].detach(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_defaults_but_for_the_step_size_are_those_of_torch(ours, theirs):
    parameters = inspect.signature(theirs).parameters
    of_all = {"lr", "clip_norm", "schedule"}  # torch has them in other places
    defaults = {name: value for name, value in vars(ours()).items() if name not in of_all}
    for name, value in defaults.items():
        expected = parameters[name].default
        assert value == (list(expected) if isinstance(expected, tuple) else expected)
    assert ours().lr == {SGD: 1e-2, Adam: 1e-3}[ours]


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (SGD(momentum=0.5, weight_decay=0.1, nesterov=True), ("lr", "momentum", "weight_decay")),
        (Adam(weight_decay=0.1), ("lr", "weight_decay")),
    ],
    ids=["SGD", "Adam"],
)
def test_numbers_may_differ_between_replicas(optimizer, names):
    numbers = {name: torch.tensor([0.1, 0.02, 0.3]) for name in names}
    stacked = {name: torch.stack([drawn(r)[name] for r in range(3)]) for name in SHAPES}

    def three_steps(params, numbers):
        one = bind(optimizer, numbers)
        state = one.init(params, CONTEXT)
        for step in range(3):
            params, state = one.update(params, gradient(params, step), state, CONTEXT)
            state = one.prepared(state)
        return params

    together = vmap(three_steps, randomness="same")(stacked, numbers)
    for r in range(3):
        alone = three_steps(drawn(r), {name: float(values[r]) for name, values in numbers.items()})
        for name in SHAPES:
            torch.testing.assert_close(together[name][r], alone[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=["SGD", "momentum", "Adam"])
def test_slots_are_shaped_like_the_parameters_and_keep_their_structure(optimizer):
    params = drawn(0)
    before = optimizer.init(params, CONTEXT)
    _, after = optimizer.update(params, drawn(1), before, CONTEXT)
    for state in (before, after):
        for slot in state.slots.values():
            assert {name: tuple(entry.shape) for name, entry in slot.items()} == SHAPES
    described = [[(path, leaf.shape, leaf.dtype) for path, leaf in leaves(s)] for s in (before, after)]
    assert described[0] == described[1]


def test_momentum_that_is_off_has_no_state():
    assert SGD().init(drawn(0), CONTEXT) == ({}, {})


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match=r"^nesterov: .*momentum above 0"):
        SGD(nesterov=True)
