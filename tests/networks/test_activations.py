from typing import get_args

import pytest
import torch

from continual.config import check_config
from continual.errors import ConfigError
from continual.networks.activations import Activation, activate
from tests import tiny

EXPECTED = {
    "relu": lambda z: z.clamp(min=0),
    "crelu": lambda z: torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=1),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "elu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "gelu": lambda z: z * torch.special.ndtr(z),
    "silu": lambda z: z / (1 + (-z).exp()),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "identity": lambda z: z,
}


def test_all_are_tested():
    assert set(EXPECTED) == set(get_args(Activation))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)], ids=["units", "maps"])
@pytest.mark.parametrize("name", EXPECTED)
def test_activation(name, shape):
    z = torch.linspace(-3, 3, torch.Size(shape).numel()).reshape(shape)
    torch.testing.assert_close(activate(name, z), EXPECTED[name](z))


def test_crelu_gives_every_unit_two_outputs():
    z = torch.tensor([[1.0, -2.0, 0.0]])
    assert activate("crelu", z).tolist() == [[1, 0, 0, 0, 2, 0]]


@pytest.mark.parametrize("network", tiny.options("network"))
def test_every_network_takes_every_activation_and_no_other(network):
    for name in EXPECTED:
        check_config(tiny.compose(f"network={network}", f"network.activation={name}", "device=cpu"))
    with pytest.raises(ConfigError, match=r"^network\.activation: .*'relu'.*not 'rleu'"):
        check_config(tiny.compose(f"network={network}", "network.activation=rleu", "device=cpu"))
