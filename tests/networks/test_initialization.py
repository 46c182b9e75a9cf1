import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from continual import random
from continual.errors import ConfigError
from continual.networks import initialization
from continual.networks.activations import activation
from continual.networks.initialization import Distribution, draw, torch_default

KEY = random.key(3)
# All draws are fixed by their keys, so a p-value is the same in every run.
PLAUSIBLE = 1e-3


class Small(nn.Module):
    """A convolution, a linear layer, and a linear output; the norms are between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 5)
        self.conv_norm = nn.GroupNorm(4, 40)
        self.hidden = nn.Linear(90, 120)
        self.hidden_norm = nn.LayerNorm(120)
        self.output = nn.Linear(120, 70)


def scaled(network, init, name):
    """Every module but the output with the gain of this activation."""
    gains = dict.fromkeys(("conv", "hidden"), activation(name).gain)
    return initialization.scaled(network, init, {**gains, "output": 1.0})


def gain(activation):
    """PyTorch's, where it has one."""
    try:
        return nn.init.calculate_gain(activation)
    except ValueError:
        return {"identity": 1.0}.get(activation, math.sqrt(2))


def torchs_own(scheme, module, gain):
    """A weight as torch.nn.init makes it, with its generator fixed."""
    weight = torch.empty_like(module.weight).detach()
    generator = torch.Generator().manual_seed(0)
    init = getattr(nn.init, f"{scheme}_")
    if scheme.startswith("kaiming"):  # whose gain with "linear" is 1
        return gain * init(weight, nonlinearity="linear", generator=generator)
    return init(weight, gain=gain, generator=generator)


@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "tanh", "identity", "crelu", "elu", "selu", "gelu", "silu"]
)
@pytest.mark.parametrize("scheme", ["kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"])
def test_schemes_are_those_of_torch(scheme, name):
    network = Small()
    found = scaled(network, scheme, name)
    for path in ("conv", "hidden", "output"):
        module = network.get_submodule(path)
        distribution = found[f"{path}.weight"]
        theirs = torchs_own(scheme, module, 1.0 if path == "output" else gain(name))
        assert distribution.shape == module.weight.shape
        if scheme.endswith("uniform"):
            assert distribution.kind == "uniform"
            assert float(theirs.abs().max()) == pytest.approx(distribution.scale, rel=3e-3)
        else:
            assert distribution.kind == "normal"
            assert float(theirs.std()) == pytest.approx(distribution.scale, rel=0.04)
        assert found[f"{path}.bias"] == Distribution(module.bias.shape, "constant", 0.0)


@pytest.mark.parametrize(
    ("scheme", "hidden", "output"),
    [
        ("kaiming_uniform", math.sqrt(6 / 90), math.sqrt(3 / 120)),
        ("kaiming_normal", math.sqrt(2 / 90), math.sqrt(1 / 120)),
        ("xavier_uniform", math.sqrt(2) * math.sqrt(6 / (90 + 120)), math.sqrt(6 / (120 + 70))),
        ("xavier_normal", math.sqrt(2) * math.sqrt(2 / (90 + 120)), math.sqrt(2 / (120 + 70))),
    ],
)
def test_scales_with_relu_by_their_formulas(scheme, hidden, output):
    found = scaled(Small(), scheme, "relu")
    assert found["hidden.weight"].scale == pytest.approx(hidden, rel=1e-6)
    assert found["output.weight"].scale == pytest.approx(output, rel=1e-6)


@pytest.mark.parametrize(("kind", "scale"), [("uniform", math.sqrt(3 / 90)), ("normal", math.sqrt(1 / 90))])
def test_lecuns_scale_is_that_of_the_fan_in_whatever_the_activation(kind, scale):
    for name in ("relu", "tanh"):
        found = scaled(Small(), f"lecun_{kind}", name)["hidden.weight"]
        assert (found.kind, found.scale) == (kind, pytest.approx(scale, rel=1e-6))


def test_orthogonal_weights_are_orthogonal_matrices_times_the_gain():
    network = Small()
    found = scaled(network, "orthogonal", "relu")
    for name, side in (("conv", 40), ("hidden", 90), ("output", 70)):
        matrix = found[f"{name}.weight"].draw(KEY).flatten(1).double()
        gram = matrix @ matrix.T if len(matrix) == side else matrix.T @ matrix
        square = 1.0 if name == "output" else 2.0
        torch.testing.assert_close(gram, square * torch.eye(side, dtype=gram.dtype), atol=1e-5, rtol=0)
        assert found[f"{name}.bias"] == Distribution(network.get_submodule(name).bias.shape, "constant", 0.0)
    keys = torch.stack([random.key(seed) for seed in range(3)])
    drawn = torch.func.vmap(found["conv.weight"].draw)(keys)
    assert torch.equal(drawn[1], found["conv.weight"].draw(keys[1]))
    assert drawn.flatten().mean().abs() < 0.01


def test_a_convolutions_fans_count_its_window():
    found = scaled(Small(), "xavier_uniform", "identity")
    assert found["conv.weight"].scale == pytest.approx(math.sqrt(6 / (3 * 25 + 40 * 25)), rel=1e-6)


def test_the_default_is_torchs_own():
    network = Small()
    found = torch_default(network)
    assert found == scaled(network, "default", "relu")
    assert list(found) == [name for name, _ in network.named_parameters()]
    for name in ("conv", "hidden", "output"):
        module = network.get_submodule(name)
        bound = found[f"{name}.weight"].scale
        assert found[f"{name}.bias"].scale == bound
        assert float(module.weight.detach().abs().max()) == pytest.approx(bound, rel=5e-3)
        assert float(module.bias.detach().abs().max()) <= bound
    for name in ("conv_norm", "hidden_norm"):
        module = network.get_submodule(name)
        assert found[f"{name}.weight"] == Distribution(module.weight.shape, "constant", 1.0)
        assert found[f"{name}.bias"] == Distribution(module.bias.shape, "constant", 0.0)


def test_layers_without_bias_get_none():
    network = nn.Sequential(nn.Linear(3, 4, bias=False))
    assert list(torch_default(network)) == ["0.weight"]
    assert list(initialization.scaled(network, "kaiming_normal", {"0": 1.0})) == ["0.weight"]


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Distribution(torch.Size([70, 40, 5]), "uniform", 0.3), stats.uniform(-0.3, 0.6)),
        (Distribution(torch.Size([70, 40, 5]), "normal", 0.3), stats.norm(0, 0.3)),
    ],
    ids=["uniform", "normal"],
)
def test_draws_are_distributed_as_they_say(distribution, expected):
    drawn = distribution.draw(KEY)
    assert drawn.shape == distribution.shape
    assert drawn.dtype == torch.float32
    assert stats.kstest(drawn.flatten().numpy(), expected.cdf).pvalue > PLAUSIBLE
    rows = drawn.flatten(1).numpy()
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() * math.sqrt(rows.shape[1]) < 5


def test_a_constant_is_constant():
    drawn = Distribution(torch.Size([2, 3]), "constant", 0.5).draw(KEY)
    assert torch.equal(drawn, torch.full((2, 3), 0.5))
    assert Distribution(torch.Size([2]), "constant", (0.5, 2.0)).draw(KEY).tolist() == [0.5, 2.0]


def test_every_parameter_draws_from_the_stream_of_its_name():
    uniform = Distribution(torch.Size([500]), "uniform", 1.0)
    drawn = draw({"a": uniform, "b": uniform}, KEY)
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.2
    assert torch.equal(draw({"b": uniform}, KEY)["b"], drawn["b"]), "whatever else the network has"
    assert not torch.equal(draw({"b": uniform}, random.key(4))["b"], drawn["b"])


def test_other_modules_have_to_say_how_they_start():
    network = nn.Sequential(nn.Linear(3, 4), nn.PReLU())
    with pytest.raises(ConfigError, match=r"^network: .*'1\.weight' \(PReLU\).*initial_distribution"):
        initialization.torch_default(network)
