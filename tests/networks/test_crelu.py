import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from continual import building
from continual.agents.agent import weight_names
from continual.agents.base import Base
from continual.cli.composing import config_folder
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.errors import ConfigError
from continual.networks.convnet import ConvNet
from continual.networks.mlp import MLP
from continual.report.configs import read_config
from continual.report.grouping import group_runs
from tests import tiny


def mlp(**settings):
    return MLP((1, 28, 28), 10, **{"hidden_sizes": [100, 100], **settings})


def convnet(classes, **settings):
    sizes = {"kernel_sizes": [5, 5], "channels": [16, 16], "hidden_sizes": [100, 100]}
    return ConvNet((3, 32, 32), classes, **{**sizes, **settings})


def count(network):
    params = dict(network.named_parameters())
    return sum(params[name].numel() for name in weight_names(network))


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer_norm"])
@pytest.mark.parametrize(
    ("make", "fraction", "widths", "parameters"),
    [
        (mlp, 0.09, [91, 91], 89_918),
        (lambda **s: convnet(10, **s), 0.27, [11, 11, 73, 73], 59_321),
        (lambda **s: convnet(2, **s), 0.27, [11, 11, 73, 73], 58_145),
        (lambda **s: convnet(100, **s), 0.31, [11, 11, 69, 69], 68_407),
    ],
    ids=["mlp", "convnet-10", "convnet-2", "convnet-100"],
)
def test_auto_removes_the_most_that_leaves_as_many_parameters(make, fraction, widths, parameters, layer_norm):
    network = make(activation="crelu", layer_norm=layer_norm)
    assert [layer.units for layer in network.hidden_layers] == widths
    assert count(network) == parameters

    plain = count(make(activation="relu"))
    assert count(make(activation="crelu", fraction_to_remove=fraction)) == parameters
    assert count(make(activation="crelu", fraction_to_remove=fraction + 0.01)) < plain <= parameters


@pytest.mark.parametrize(
    ("fraction", "units"), [(0, 100), (0.18, 82), (0.29, 71), (0.5, 50), (0.57, 43), (0.999, None)]
)
def test_a_fraction_of_ones_own(fraction, units):
    if units is None:
        with pytest.raises(ConfigError, match=r"^network\.fraction_to_remove: 0\.999 leaves no unit of 100"):
            mlp(activation="crelu", fraction_to_remove=fraction)
    else:
        network = mlp(activation="crelu", fraction_to_remove=fraction)
        assert [layer.units for layer in network.hidden_layers] == [units, units]


@pytest.mark.parametrize("make", [mlp, lambda **s: convnet(10, **s)], ids=["mlp", "convnet"])
def test_other_activations_keep_their_width_and_take_no_fraction(make):
    for fraction in ("auto", 0, 0.0):
        assert make(activation="tanh", fraction_to_remove=fraction).hidden_layers[0].units in (16, 100)
    with pytest.raises(
        ConfigError,
        match=r"^network\.fraction_to_remove: 0\.2 .*two outputs .* crelu and deep_fourier",
    ):
        make(activation="tanh", fraction_to_remove=0.2)


@pytest.mark.parametrize(
    "settings",
    [{"channels": [1, 1]}, {"hidden_sizes": [1, 1]}, {"channels": [1, 1], "hidden_sizes": [1, 1]}],
)
def test_auto_leaves_units_in_every_layer(settings):
    assert min(layer.units for layer in convnet(10, activation="crelu", **settings).hidden_layers) >= 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["agent=crelu"], {"activation": "crelu", "layer_norm": False, "fraction_to_remove": "auto"}),
        (["agent=crelu", "network=convnet"], {"activation": "crelu", "kernel_sizes": [5, 5]}),
        (["agent=crelu", "env=random_label_cifar"], {"activation": "crelu", "kernel_sizes": [5, 5]}),
        (
            ["agent=crelu", "network.fraction_to_remove=0.18"],
            {"activation": "crelu", "fraction_to_remove": 0.18},
        ),
        (["agent=crelu", "network.layer_norm=true"], {"activation": "crelu", "layer_norm": True}),
        (["agent=layer_norm"], {"activation": "relu", "layer_norm": True}),
        (["agent=layer_norm", "network=deep_convnet"], {"layer_norm": True, "kernel_sizes": [5, 3, 3]}),
        (["agent=base"], {"activation": "relu", "layer_norm": False}),
    ],
    ids=" ".join,
)
def test_agents_that_are_base_with_another_network(overrides, expected):
    config = tiny.compose(*overrides)
    assert expected.items() <= config["network"].items()
    assert config["agent"] == {"_target_": f"{Base.__module__}.{Base.__name__}"}


def test_any_agent_can_have_such_a_network(compose):
    config = compose("agent=l2_init", "network.layer_norm=true", "network.activation=crelu")
    learner, _ = building.prepare(config)
    assert [layer.norm for layer in learner.anatomy.hidden_layers] == ["hidden0_norm", "hidden1_norm"]
    assert not any("norm" in name for name in learner.anatomy.weights)


@pytest.mark.parametrize("agents", [("base", "crelu", "layer_norm"), ("base", "layer_norm")], ids=" ".join)
def test_reports_call_them_by_their_names(agents, tmp_path):
    configs = []
    for agent in agents:
        with hydra.initialize_config_dir(str(config_folder()), **DEFAULTS_OF_1_3):
            composed = hydra.compose("train", [f"agent={agent}"], return_hydra_config=True)
        folder = tmp_path / agent / ".hydra"
        folder.mkdir(parents=True)
        choices = {"hydra": {"runtime": {"choices": OmegaConf.to_container(composed.hydra.runtime.choices)}}}
        (folder / "hydra.yaml").write_text(yaml.safe_dump(choices))
        own = OmegaConf.masked_copy(composed, [name for name in composed if name != "hydra"])
        OmegaConf.save(own, folder / "config.yaml")
        (folder / "overrides.yaml").write_text(yaml.safe_dump([f"agent={agent}"]))
        configs.append(read_config(tmp_path / agent))
    grouping = group_runs(configs)
    assert grouping.shown == ["agent"]
    assert [group["agent"] for group in grouping.groups] == list(agents)
