import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from continual import random
from continual.agents.agent import weight_names
from continual.errors import ConfigError
from continual.networks.convnet import ConvNet
from continual.networks.mlp import MLP
from continual.networks.pooling import max_pool
from continual.schema import locate
from tests import tiny

DEEP = {"kernel_sizes": [5, 3, 3], "channels": [16] * 3, "hidden_sizes": [100] * 3}
CONTINUAL_IMAGENET = {"kernel_sizes": [5, 3, 3], "channels": [32, 64, 128], "hidden_sizes": [128, 128]}
LABEL_PERMUTED_CIFAR = {
    "channels": [6, 16],
    "hidden_sizes": [120, 84],
    "activation": ["identity", "identity", "relu", "relu"],
}
ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "crelu": lambda z: torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=1),
}


def convnet(shape=(3, 32, 32), classes=10, **settings):
    sizes = {"kernel_sizes": [5, 5], "channels": [16, 16], "hidden_sizes": [100, 100]}
    return ConvNet(shape, classes, **{**sizes, **settings})


def small(shape, classes, kernels=(5, 5), channels=4, hidden=5, **settings):
    sizes = {"kernel_sizes": [*kernels], "channels": [channels] * len(kernels)}
    return ConvNet(shape, classes, **sizes, hidden_sizes=[hidden] * len(kernels), **settings)


def count(network):
    params = dict(network.named_parameters())
    return sum(params[name].numel() for name in weight_names(network))


@pytest.mark.parametrize(
    ("shape", "classes", "settings", "expected"),
    [
        ((3, 32, 32), 10, {}, 58_842),
        ((3, 32, 32), 100, {}, 67_932),
        ((3, 32, 32), 2, {}, 58_034),
        ((3, 32, 32), 10, {"layer_norm": True}, 58_842),
        ((1, 28, 28), 10, {}, 26 * 16 + 401 * 16 + (16 * 16 + 1) * 100 + 101 * 100 + 101 * 10),
        ((1, 56, 28), 100, {}, 26 * 16 + 401 * 16 + (16 * 11 * 4 + 1) * 100 + 101 * 100 + 101 * 100),
        # As published: Dohare et al.'s for Continual ImageNet; UPGD's for CIFAR-10.
        ((3, 32, 32), 2, CONTINUAL_IMAGENET, 177_218),
        ((3, 32, 32), 10, LABEL_PERMUTED_CIFAR, 62_006),
        ((3, 32, 32), 10, {"hidden_sizes": []}, 76 * 16 + 401 * 16 + (16 * 25 + 1) * 10),
        ((3, 32, 32), 10, DEEP, 76 * 16 + 2 * 145 * 16 + 65 * 100 + 2 * 101 * 100 + 101 * 10),
    ],
)
def test_weights_and_biases_in_all(shape, classes, settings, expected):
    assert count(convnet(shape, classes, **settings)) == expected


@pytest.mark.parametrize(("name", "expected"), [("convnet", {}), ("deep_convnet", DEEP)])
def test_the_papers_networks(name, expected):
    node = tiny.compose(f"network={name}")["network"]
    made = locate(node.pop("_target_"))((3, 32, 32), 10, **node)
    assert count(made) == count(convnet(**expected))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 56, 28)])
@pytest.mark.parametrize(
    "settings", [{}, {"activation": "crelu"}, {"kernels": (5, 3, 3)}], ids=["plain", "crelu", "deep"]
)
def test_shapes(shape, settings):
    network = small(shape, 7, hidden=9, fraction_to_remove=0, **settings)
    logits, features = network(torch.randn(5, *shape))
    assert logits.shape == (5, 7)
    outputs = 2 if settings.get("activation") == "crelu" else 1
    height, width = shape[1:]
    expected = {}
    kernels = settings.get("kernels", [5, 5])
    for i, kernel in enumerate(kernels):
        height, width = height - kernel + 1, width - kernel + 1
        expected[f"conv{i}"] = (5, 4 * outputs, height, width)
        height, width = height // 2, width // 2
    expected |= {f"hidden{i}": (5, 9 * outputs) for i in range(len(kernels))}
    assert {name: h.shape for name, h in features.items()} == expected


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer_norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_logits_features_and_gradients(activation, layer_norm):
    torch.manual_seed(0)
    network = small((2, 19, 18), 3, hidden=6, activation=activation, layer_norm=layer_norm)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, 2, 19, 18)
    params = dict(network.named_parameters())

    expected, h = {}, x
    for name in ("conv0", "conv1", "hidden0", "hidden1"):
        weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
        z = F.conv2d(h, weight, bias) if name.startswith("conv") else h.reshape(5, -1) @ weight.T + bias
        if layer_norm:
            axes = tuple(range(1, z.ndim))
            z = (z - z.mean(axes, keepdim=True)) / (z.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()
            z = z * params[f"{name}_norm.weight"] + params[f"{name}_norm.bias"]
        h = expected[name] = ACTIVATIONS[activation](z)
        if name.startswith("conv"):
            h = F.max_pool2d(h, 2)
    expected_logits = h @ params["output.weight"].T + params["output.bias"]

    logits, features = network(x)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, expected_logits)
    along = torch.randn(5, 3)
    for ours, theirs in zip(
        torch.autograd.grad((logits * along).sum(), list(params.values())),
        torch.autograd.grad((expected_logits * along).sum(), list(params.values())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_padding_pooling_and_activation_of_each_layer():
    torch.manual_seed(0)
    network = ConvNet(
        (2, 12, 13),
        3,
        kernel_sizes=[3, 5],
        channels=[4, 6],
        hidden_sizes=[7],
        padding=[1, 2],
        pool=[3, 1],
        activation=["identity", "tanh", "relu"],
    )
    x = torch.randn(5, 2, 12, 13)
    conv0 = F.conv2d(x, network.conv0.weight, network.conv0.bias, padding=1)
    conv1 = F.conv2d(F.max_pool2d(conv0, 3), network.conv1.weight, network.conv1.bias, padding=2).tanh()
    hidden0 = F.relu(conv1.flatten(1) @ network.hidden0.weight.T + network.hidden0.bias)
    logits, features = network(x)
    torch.testing.assert_close(features, {"conv0": conv0, "conv1": conv1, "hidden0": hidden0})
    torch.testing.assert_close(logits, hidden0 @ network.output.weight.T + network.output.bias)
    assert [(layer.pool, layer.spread) for layer in network.hidden_layers] == [(3, 1), (1, 16), (1, 1)]


@pytest.mark.parametrize("key", ["channels", "padding", "pool"])
def test_a_list_that_is_not_as_long_as_there_are_convolutions(key):
    with pytest.raises(ConfigError, match=rf"^network\.{key}: \[1\] does not go with the 2 convolutions"):
        convnet(**{key: [1]})


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_only_with_a_key_and_after_the_features(dropout):
    torch.manual_seed(0)
    network = small((2, 19, 18), 3, hidden=600, dropout=dropout)
    x = torch.randn(5, 2, 19, 18)
    evaluated, features = network(x)
    logits, trained = network(x, random.key(1))
    assert network.is_random == (dropout > 0)
    assert torch.equal(trained["conv0"], features["conv0"])
    if dropout == 0:
        assert torch.equal(logits, evaluated)
        return
    # What the second linear layer reads: a fraction is zeroed, the rest scaled up.
    seen = []
    network.hidden1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    _, trained = network(x, random.key(1))
    alive = trained["hidden0"] > 0
    ratio = (seen[0] / trained["hidden0"])[alive]
    assert ratio[ratio != 0].tolist() == pytest.approx([1 / 0.6] * int((ratio != 0).sum()))
    assert float((ratio == 0).float().mean()) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("window", [2, 3])
def test_max_pool(window):
    h = torch.randn(2, 3, 7, 10, requires_grad=True)
    torch.testing.assert_close(max_pool(h, window), F.max_pool2d(h, window))
    (gradient,) = torch.autograd.grad(max_pool(h, window).square().sum(), h)
    torch.testing.assert_close(gradient, *torch.autograd.grad(F.max_pool2d(h, window).square().sum(), h))


@pytest.mark.parametrize(
    ("shape", "settings", "smallest"),
    [((1, 15, 28), {}, (1, 16, 28)), ((1, 28, 15), {}, (1, 28, 16)), ((3, 23, 23), DEEP, (3, 24, 24))],
)
def test_an_image_that_is_too_small(shape, settings, smallest):
    with pytest.raises(ConfigError, match=rf"^network\.kernel_sizes: images of {shape[1]}x{shape[2]} .*mlp"):
        convnet(shape, **settings)
    convnet(smallest, **settings)


NETWORKS = {
    "mlp": lambda activation: MLP((2, 4, 5), 3, hidden_sizes=[5, 5, 5], activation=activation),
    "convnet": lambda activation: small((2, 18, 20), 3, activation=activation),
    "deep": lambda activation: small((1, 24, 25), 3, kernels=(5, 3, 3), activation=activation),
}
SHAPES = {"mlp": (2, 4, 5), "convnet": (2, 18, 20), "deep": (1, 24, 25)}


@pytest.mark.parametrize("activation", ["tanh", "crelu"])
@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_layers_tell_what_belongs_to_a_unit(name, activation):
    """Only a unit's features depend on its incoming row, and only by its outgoing columns do the logits."""
    torch.manual_seed(1)
    network = NETWORKS[name](activation)
    x = torch.randn(4, *SHAPES[name])
    for layer in network.hidden_layers:
        copies = 2 if activation == "crelu" else 1
        assert layer.outputs_per_unit == copies
        for unit in range(layer.units):
            before = {key: value.detach().clone() for key, value in network.named_parameters()}
            changed = {key: value.clone() for key, value in before.items()}
            changed[f"{layer.incoming}.weight"][unit] += 1
            changed[f"{layer.incoming}.bias"][unit] -= 0.5
            (logits, features), (other_logits, other) = (
                functional_call(network, p, (x,)) for p in (before, changed)
            )
            differs = (features[layer.name] != other[layer.name]).transpose(0, 1).flatten(1).any(1)
            assert differs.reshape(copies, layer.units).any(0).nonzero().flatten().tolist() == [unit]
            assert not torch.equal(logits, other_logits)

            for params in (before, changed):
                weight = params[f"{layer.outgoing}.weight"]
                window = weight[0, 0].numel()
                columns = weight.view(weight.shape[0], copies, layer.units, layer.spread * window)
                columns[:, :, unit] = 0
            torch.testing.assert_close(
                functional_call(network, before, (x,))[0], functional_call(network, changed, (x,))[0]
            )


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_layers_follow_one_another(name):
    layers = NETWORKS[name]("relu").hidden_layers
    assert [layer.outgoing for layer in layers] == [*(layer.incoming for layer in layers[1:]), "output"]
    assert [layer.pool for layer in layers] == [2 if layer.name.startswith("conv") else 1 for layer in layers]
    flattened = {"mlp": [], "convnet": [1 * 2], "deep": [1 * 1]}[name]
    assert [layer.spread for layer in layers if layer.pool == 2][-1:] == flattened
