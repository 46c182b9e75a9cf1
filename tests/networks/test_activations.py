import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from continual import random
from continual.agents.agent import weight_names
from continual.config import check_config
from continual.errors import ConfigError
from continual.networks.activations import ACTIVATIONS, LearntActivation, activation
from continual.networks.initialization import torch_default
from continual.networks.mlp import MLP
from tests import tiny

KEY = random.key(5)
PADE = (0.02996348, 0.61690165, 2.37539147, 3.06608078, 1.52474449, 0.25281987)
POLES = (1.19160814, 4.40811795, 0.91111034, 0.34885983)


def rational(z):
    above = sum(a * z**j for j, a in enumerate(PADE))
    return above / (1 + sum(b * z ** (j + 1) for j, b in enumerate(POLES)).abs())


# At an evaluation.
EXPECTED = {
    "relu": lambda z: z.clamp(min=0),
    "crelu": lambda z: torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=1),
    "deep_fourier": lambda z: torch.cat([z.sin(), z.cos()], dim=1),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "rrelu": lambda z: F.rrelu(z, 1 / 8, 1 / 3, training=False),
    "prelu": lambda z: F.prelu(z, torch.tensor([0.25])),
    "smooth_leaky": lambda z: 0.1 * z + 0.9 * z / (1 + (-5 * z / 3).exp()),
    "rand_smooth_leaky": lambda z: 11 / 48 * z + 37 / 48 * z / (1 + (-5 * z / 3).exp()),
    "aid": lambda z: torch.where(z > 0, 0.9 * z, 0.1 * z),
    "rational": rational,
    "elu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "celu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "selu": lambda z: 1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * (z.exp() - 1)),
    "gelu": lambda z: z * torch.special.ndtr(z),
    "silu": lambda z: z / (1 + (-z).exp()),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "sin": lambda z: z.sin(),
    "identity": lambda z: z,
}


def applied(choice, z, key=None):
    made = activation(choice)
    return made(z, key, start(made, z.shape[1]))


def start(made, units):
    """What is learnt, as it is at the start."""
    module = LearntActivation(made, units)
    return {name: d.draw(KEY) for name, d in torch_default(module).items()}


def test_all_are_tested():
    assert set(EXPECTED) == set(ACTIVATIONS)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)], ids=["units", "maps"])
@pytest.mark.parametrize("name", EXPECTED)
def test_activation(name, shape):
    z = torch.linspace(-3, 3, torch.Size(shape).numel()).reshape(shape)
    found = applied(name, z)
    torch.testing.assert_close(found, EXPECTED[name](z))
    assert found.shape[1] == 6 * activation(name).outputs_per_unit


@pytest.mark.parametrize(
    ("choice", "at", "values"),
    [
        ("crelu", [1.0, -2.0, 0.0], [1, 0, 0, 0, 2, 0]),
        ("smooth_leaky", [-2.0, -0.5, 1.0], [-0.26200135, -0.18632332, 0.85701781]),
        ({"name": "leaky_relu", "slope": 0.2}, [-1.0, 2.0], [-0.2, 2]),
        ({"name": "aid", "p": 1.0}, [-1.0, 2.0], [0, 2]),
        ({"name": "aid", "p": 0.5}, [-1.0, 2.0], [-0.5, 1]),
        ({"name": "prelu", "start": 0.5}, [-1.0, 2.0], [-0.5, 2]),
        ({"name": "elu", "alpha": 2.0}, [-1.0, 2.0], [2 * (math.exp(-1) - 1), 2]),
        ({"name": "celu", "alpha": 2.0}, [-1.0, 2.0], [2 * (math.exp(-0.5) - 1), 2]),
    ],
)
def test_values_and_numbers(choice, at, values):
    torch.testing.assert_close(
        applied(choice, torch.tensor([at])), torch.tensor([values], dtype=torch.float32)
    )


def test_random_slopes_are_drawn_for_each_entry_and_only_with_a_key():
    z = -torch.ones(400, 50)
    slopes = -applied("rrelu", z, KEY)
    assert 1 / 8 <= slopes.min() < 0.126 < 0.332 < slopes.max() <= 1 / 3
    assert float(slopes.mean()) == pytest.approx((1 / 8 + 1 / 3) / 2, abs=2e-3)
    assert len(slopes.unique()) > 0.99 * slopes.numel()
    assert torch.equal(slopes, -applied("rrelu", z, KEY))
    smooth = applied("rand_smooth_leaky", z, KEY)
    weight = 1 / (1 + math.exp(5 / 3))
    torch.testing.assert_close(smooth, -(slopes + (1 - slopes) * weight))
    assert torch.equal(applied("rrelu", -z, KEY), -z)


def test_aid_takes_each_half_with_its_probability():
    z = torch.tensor([[-1.0, 2.0]]).repeat(20_000, 1)
    drawn = applied({"name": "aid", "p": 0.7}, z, KEY)
    assert set(drawn[:, 0].tolist()) == {0.0, -1.0}
    assert set(drawn[:, 1].tolist()) == {0.0, 2.0}
    assert float((drawn[:, 0] == 0).float().mean()) == pytest.approx(0.7, abs=0.02)
    assert float((drawn[:, 1] == 2).float().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(applied({"name": "aid", "p": 1.0}, z, KEY), z.clamp(min=0))


def test_what_is_learnt_is_no_weight_and_starts_where_it_should():
    network = MLP((1, 4, 5), 3, [6, 7], activation=["rational", {"name": "prelu", "per": "unit"}])
    assert not any("activation" in name for name in weight_names(network))
    assert [layer.activation for layer in network.hidden_layers] == [
        "hidden0_activation",
        "hidden1_activation",
    ]
    distributions = network.initial_distribution()
    assert distributions["hidden1_activation.slope"].draw(KEY).tolist() == [0.25] * 7
    assert distributions["hidden0_activation.numerator"].draw(KEY).tolist() == pytest.approx(list(PADE))


def test_a_slope_for_each_channel_of_a_map():
    z = -torch.ones(2, 3, 4, 4)
    learnt = {"slope": torch.tensor([0.1, 0.2, 0.3])}
    found = activation({"name": "prelu", "per": "unit"})(z, None, learnt)
    assert found[1, :, 2, 3].tolist() == pytest.approx([-0.1, -0.2, -0.3])


def test_every_layer_can_have_its_own():
    torch.manual_seed(0)
    network = MLP((1, 4, 5), 3, [6, 7], activation=["identity", {"name": "leaky_relu", "slope": 0.5}])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 1, 4, 5)
    _, features = network(x)
    first = x.flatten(1) @ network.hidden0.weight.T + network.hidden0.bias
    second = F.leaky_relu(first @ network.hidden1.weight.T + network.hidden1.bias, 0.5)
    torch.testing.assert_close(features, {"hidden0": first, "hidden1": second})


@pytest.mark.parametrize("network", tiny.options("network"))
def test_every_network_takes_every_activation(network):
    config = tiny.compose(f"network={network}", "device=cpu")
    for name in EXPECTED:
        config["network"]["activation"] = name
        check_config(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.activation=rleu", r"there is no activation 'rleu'; did you mean relu\?"),
        ("network.activation=[relu,rleu]", r"there is no activation 'rleu'"),
        ("network.activation={slope:0.1}", r"there is no activation None; possible: relu, crelu, "),
        (
            "network.activation={name:leaky_relu,slop:0.1}",
            r"leaky_relu\.slop: no such key; did you mean",
        ),
        ("network.activation={name:aid,p:1.5}", r"aid\.p: must be less than or equal to 1, not 1\.5"),
        ("network.activation={name:rrelu,lower:0.5}", r"rrelu\.lower: 0\.5 is above upper"),
        ("network.activation=3", r".*must be a valid string.*not 3"),
        ("network.activation=[relu]", r"1 are given for 2 hidden layers"),
    ],
)
def test_what_is_no_activation(override, message):
    def build():
        config = tiny.compose(override, "device=cpu")
        check_config(config)
        MLP((1, 4, 5), 3, config["network"]["hidden_sizes"], config["network"]["activation"])

    with pytest.raises(ConfigError, match=rf"^network\.activation: {message}"):
        build()
