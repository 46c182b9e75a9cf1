"""A network of the user's own: a file anywhere on the PYTHONPATH, and a YAML in any folder."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from continual import building
from continual.errors import ConfigError
from tests import tiny
from tests.sweep.subprocesses import ROOT

MODULE = """
import math

import torch
from torch import nn

from continual.networks.initialization import Distribution, torch_default
from continual.networks.network import Network


class Mine(nn.Module):
    def __init__(self, input_shape, num_classes, width: int = 6):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.LayerNorm(width))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.head(h), {"body": h}


class ListOfFeatures(Mine):
    def forward(self, x):
        logits, features = super().forward(x)
        return logits, [features["body"]]


class WithGain(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.gain = nn.Parameter(torch.ones(6))


class ThatTells(Network):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.inner = Mine(input_shape, num_classes)
        self.gain = nn.Parameter(torch.ones(num_classes))

    def forward(self, x):
        logits, features = self.inner(x)
        return self.gain * logits, features

    def initial_distribution(self):
        gain = Distribution(self.gain.shape, "constant", 2.0)
        inner = torch_default(self.inner)
        return {**{f"inner.{name}": value for name, value in inner.items()}, "gain": gain}


class Frozen(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.body.requires_grad_(False)


class AllFrozen(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.requires_grad_(False)


class FrozenThatTells(ThatTells):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.gain.requires_grad_(False)


class ZeroOutput(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, 0.5)


class Orthogonal(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        nn.init.orthogonal_(self.body[1].weight)


class Tied(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.again = nn.Linear(6, num_classes)
        self.again.weight = self.head.weight


class Remembering(Mine):
    def forward(self, x):
        self.doubled = 2 * self.head.weight
        h = torch.relu(self.body(x))
        return nn.functional.linear(h, self.doubled, self.head.bias), {"body": h}


class Counting(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return super().forward(x)


class Lazy(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.head = nn.LazyLinear(num_classes)


class WithDropout(Mine):
    def __init__(self, input_shape, num_classes):
        super().__init__(input_shape, num_classes)
        self.body.append(nn.Dropout(0.5))


class LogitsAlone(Mine):
    def forward(self, x):
        return super().forward(x)[0]


class FeaturesAsLogits(Mine):
    def forward(self, x):
        h = self.body(x)
        return h, [h]


class OneFeature(Mine):
    def forward(self, x):
        return super().forward(x)[0], x.sum()


class WithAnIf(Mine):
    def forward(self, x):
        if x.sum() > self.head.bias.sum():
            x = -x
        return super().forward(x)


class OfFixedSize(nn.Module):
    def __init__(self, num_classes):
        super().__init__()


class OfNoUse:
    pass
"""


def _line(code):
    """The line of the module in which this code is for the first time, as "mine.py:12"."""
    return f"mine.py:{MODULE[: MODULE.index(code)].count(chr(10)) + 1}"


MISTAKES = {
    "WithGain": r"network: the initial distribution of 'gain' \(WithGain\) .* initial_distribution\(\)\.",
    "AllFrozen": r"network: every parameter is frozen \(requires_grad is false\): nothing can be trained\.",
    "Tied": r"network: 'head\.weight' and 'again\.weight' are one parameter \(tied weights\), .*",
    "Counting": r"network: its forward changes the buffer 'seen', which all replicas would share; .*",
    "Lazy": r"network: 'head\.weight' has no shape yet \(a lazy module\); .*",
    "WithDropout": r"network: 'body\.3' is a dropout that draws from PyTorch's own random numbers, .*",
    "LogitsAlone": r"network: LogitsAlone\.forward must return \(logits, features\), not a Tensor\.",
    "FeaturesAsLogits": r"network: .* logits of shape \(2, 5\) for 2 images and 5 classes, not \(2, 6\)\.",
    "OneFeature": r"network: OneFeature\.forward must return as features a dict or list of tensors .*",
    "WithAnIf": rf"network: WithAnIf\.forward fails as one of many .* control flow.*\({_line('if x')}\)",
    "OfFixedSize": r"network\._target_: its class must take the argument 'input_shape'\.",
    "OfNoUse": r"network\._target_: .*",
    "NotThere": r"network\._target_: cannot import 'mine\.NotThere' .*",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The module's folder, from which it can be imported."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def config_of(compose, name, *overrides):
    config = compose(*overrides)
    config["network"] = {"_target_": f"mine.{name}"}
    return config


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_the_first_step(mine, compose, name):
    with pytest.raises(ConfigError) as error:
        building.prepare(config_of(compose, name))
    assert error.match(f"^{MISTAKES[name]}$")


@pytest.mark.parametrize("agent", ["base", "l2_init", "shrink_and_perturb"])
@pytest.mark.parametrize("name", ["Mine", "ListOfFeatures", "ThatTells"])
def test_it_trains_with_agents_that_need_no_units(mine, compose, tmp_path, name, agent):
    configs = [config_of(compose, name, f"agent={agent}", f"seed={seed}") for seed in (0, 1)]
    one, other = tiny.train(configs, tmp_path / "runs")
    assert one.summary["status"] == other.summary["status"] == "completed"
    assert one.tasks != other.tasks
    layer = "hidden0" if name == "ListOfFeatures" else "body"
    assert f"srank/{layer}" in one.tasks.splitlines()[0].split(",")


def test_a_forward_may_leave_tensors_in_its_module(mine, compose, tmp_path):
    """As the hooks of torch.nn.utils.weight_norm do; two populations of one structure are trained."""
    for name in ("one", "other"):
        (run,) = tiny.train([config_of(compose, "Remembering")], tmp_path / name)
        assert run.summary["status"] == "completed"


def test_its_own_distribution_is_drawn_from(mine, compose):
    population = tiny.population([config_of(compose, "ThatTells")])
    assert population.state["params"]["gain"].tolist() == [[2.0] * 5]


@pytest.mark.parametrize("agent", ["l2_init", "ewc"])
def test_what_is_frozen_stays_as_it_is(mine, compose, tmp_path, caplog, agent):
    configs = [config_of(compose, "Frozen", f"agent={agent}", f"seed={seed}") for seed in (0, 1)]
    learner, _ = building.prepare(configs[0])
    assert "'body.1.weight', 'body.1.bias', 'body.2.weight', 'body.2.bias' are frozen" in caplog.text
    before = {name: param.clone() for name, param in learner.network.named_parameters()}
    runs = tiny.train(configs, tmp_path)
    assert {name for name in runs[0].state if name.startswith("params/")} == {
        "params/head.weight",
        "params/head.bias",
    }
    after = dict(learner.network.named_parameters())
    assert all(after[name].equal(before[name]) for name in before)
    # In another process it is the same: a module's own draws come from a fixed seed.
    torch.manual_seed(1234)
    building.forget()
    again, _ = building.prepare(configs[0])
    assert dict(again.network.named_parameters())["body.1.weight"].equal(before["body.1.weight"])


def test_a_frozen_parameter_of_a_network_that_tells_is_not_drawn(mine, compose):
    population = tiny.population([config_of(compose, "FrozenThatTells")])
    assert "gain" not in population.state["params"]


def test_values_that_a_module_sets_everywhere_are_kept(mine, compose, caplog):
    state = tiny.population([config_of(compose, "ZeroOutput")]).state["params"]
    assert not state["head.weight"].any()
    assert state["head.bias"].unique().tolist() == [0.5]
    assert len(state["body.1.weight"].unique()) > 100
    assert not caplog.records


def test_values_that_are_replaced_are_named(mine, compose, caplog):
    building.prepare(config_of(compose, "Orthogonal"))
    (record,) = caplog.records
    assert "the initial values that Orthogonal gives to 'body.1.weight' are replaced" in record.getMessage()


@pytest.mark.parametrize("agent", ["redo", "continual_backprop"])
def test_agents_that_replace_units_say_what_they_need(mine, compose, agent):
    with pytest.raises(ConfigError, match=rf"^agent: {agent} needs .* hidden_layers\.$"):
        building.prepare(config_of(compose, "Mine", f"agent={agent}"))


def test_from_the_command_line(tmp_path, npz):
    (tmp_path / "mine.py").write_text(MODULE)
    yaml = tmp_path / "own" / "network" / "mine.yaml"
    yaml.parent.mkdir(parents=True)
    yaml.write_text("_target_: mine.Mine\nwidth: 4  # units of the hidden layer\n")
    arguments = [
        "--config-dir=own",
        *(override for override in tiny.OVERRIDES if not override.startswith("network.")),
        f"env.dataset.path={npz}",
        "network=mine",
        "network.width=8",
        "hydra.run.dir=run",
    ]
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
    )
    with open(tmp_path / "run" / "tasks.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert 0 < float(rows[0]["srank/body"]) <= 8
