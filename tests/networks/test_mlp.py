import pytest
import torch
from torch import nn
from torch.nn import functional as F

from continual.networks.mlp import MLP

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
    "crelu": lambda z: torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=1),
}


def mlp(shape, classes, **settings):
    return MLP(shape, classes, **{"hidden_sizes": [100, 100], **settings})


def count(network, norms=False):
    """Weights and biases, with or without those of norms."""
    return sum(p.numel() for name, p in network.named_parameters() if norms or "norm" not in name)


@pytest.mark.parametrize(
    ("shape", "classes", "settings", "expected"),
    [
        ((1, 28, 28), 10, {}, 89_610),
        ((1, 28, 28), 10, {"layer_norm": True}, 89_610),
        ((1, 28, 28), 10, {"hidden_sizes": [100] * 4}, 89_610 + 2 * 10_100),
        ((1, 28, 28), 10, {"hidden_sizes": [400, 400]}, 785 * 400 + 401 * 400 + 401 * 10),
        ((1, 28, 28), 10, {"activation": "crelu"}, 89_918),
        ((3, 2, 2), 5, {"hidden_sizes": [7]}, 13 * 7 + 8 * 5),
        ((3, 2, 2), 5, {"hidden_sizes": []}, 13 * 5),
        # As published: UPGD's two, Dohare et al.'s two.
        ((1, 28, 28), 10, {"hidden_sizes": [300, 150]}, 282_160),
        ((1, 1, 2048), 100, {"hidden_sizes": [300, 150]}, 2049 * 300 + 301 * 150 + 151 * 100),
        ((1, 28, 28), 10, {"hidden_sizes": [2000, 2000, 2000]}, 9_594_010),
        ((1, 1, 20), 1, {"hidden_sizes": [5]}, 111),
    ],
)
def test_weights_and_biases_in_all(shape, classes, settings, expected):
    assert count(mlp(shape, classes, **settings)) == expected


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer_norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_linear_norm_activation_layer_by_layer(activation, layer_norm):
    torch.manual_seed(0)
    network = MLP((2, 3, 4), 5, hidden_sizes=[6, 6, 6], activation=activation, layer_norm=layer_norm)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(8, 2, 3, 4)
    logits, features = network(x)

    h = x.reshape(8, 24)
    params = dict(network.named_parameters())
    assert list(features) == ["hidden0", "hidden1", "hidden2"]
    for name, feature in features.items():
        z = h @ params[f"{name}.weight"].T + params[f"{name}.bias"]
        if layer_norm:
            z = (z - z.mean(1, keepdim=True)) / torch.sqrt(z.var(1, keepdim=True, unbiased=False) + 1e-5)
            z = z * params[f"{name}_norm.weight"] + params[f"{name}_norm.bias"]
        h = ACTIVATIONS[activation](z)
        torch.testing.assert_close(feature, h)
    torch.testing.assert_close(logits, h @ params["output.weight"].T + params["output.bias"])


def test_it_tells_its_hidden_layers():
    network = MLP((1, 4, 5), 3, hidden_sizes=[7, 7], layer_norm=True)
    assert [(layer.name, layer.outgoing) for layer in network.hidden_layers] == [
        ("hidden0", "hidden1"),
        ("hidden1", "output"),
    ]
    params = dict(network.named_parameters())
    for layer in network.hidden_layers:
        assert params[f"{layer.incoming}.weight"].shape[0] == layer.units == 7
        assert params[f"{layer.outgoing}.weight"].shape[1] == layer.units * layer.spread
        assert params[f"{layer.norm}.weight"].shape == (7,)
    assert mlp((1, 4, 5), 3).hidden_layers[0].norm is None


def test_every_parameter_has_an_initial_distribution_of_its_shape():
    network = MLP((1, 4, 5), 3, hidden_sizes=[7, 7], layer_norm=True, init="kaiming_normal")
    found = network.initial_distribution()
    assert {name: d.shape for name, d in found.items()} == {n: p.shape for n, p in network.named_parameters()}
    assert found["hidden0.weight"].kind == "normal"
    assert found["hidden0.weight"].scale == pytest.approx((2 / 20) ** 0.5)
    assert found["output.weight"].scale == pytest.approx((1 / 7) ** 0.5)
    assert found["hidden0_norm.weight"].scale == 1
