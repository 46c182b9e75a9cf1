"""Every file in conf/: it composes, it can be run, and it says what every value means."""

import dataclasses
import inspect
from pathlib import Path

import pytest
import yaml

from continual.cli.composing import config_folder
from continual.config import PROVIDED, EngineConfig, MetricsConfig, TrainConfig, WandbConfig, check_config
from continual.schema import locate, number_fields
from tests import tiny
from tests.contracts.every import AGENTS

FOLDER = config_folder()
GROUPS = ("agent", "env", "env/dataset", "experiment", "network", "optimizer")
OPTIONS = [(group, option) for group in GROUPS for option in tiny.options(group)]
NEEDS = {"npz": ["env.dataset.path=mine.npz"]}
# Tables of published numbers and grids are commented as a whole.
COMMENTED = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if path.name != "best.yaml" and not path.is_relative_to(FOLDER / "sweep")
)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda name: name)
def test_every_option_composes_to_a_config_that_can_be_run(group, option):
    config = tiny.compose(f"{group}={option}", "device=cpu", *NEEDS.get(option, []))
    check_config(config)


# Those that set something of the network with each; the others with one that is not the default.
NETWORKS = [
    (agent, network)
    for agent in AGENTS
    for network in tiny.options("network")
    if network == "convnet" or agent in ("crelu", "layer_norm")
]


@pytest.mark.parametrize(("agent", "network"), NETWORKS)
def test_every_agent_composes_with_every_network(agent, network):
    config = tiny.compose(f"network={network}", f"agent={agent}", "device=cpu")
    check_config(config)
    assert config["network"]["_target_"] == tiny.compose(f"network={network}")["network"]["_target_"]


def nodes():
    """Every option whose keys are the arguments of a class."""
    for group in ("agent", "env", "network", "optimizer"):
        for option in tiny.options(group):
            content = yaml.safe_load((FOLDER / group / f"{option}.yaml").read_text())
            if "_target_" in content:
                yield pytest.param(group, content, id=f"{group}={option}")


@pytest.mark.parametrize(("group", "content"), [*nodes()])
def test_its_keys_are_the_arguments_of_its_class(group, content):
    arguments = set(inspect.signature(locate(content["_target_"])).parameters)
    keys = {name for name in content if name not in ("_target_", "defaults")}
    assert keys == arguments - {*PROVIDED[group], "plus", "schedule"}


@pytest.mark.parametrize(("group", "content"), [n for n in nodes() if n.values[0] in ("agent", "optimizer")])
def test_its_values_are_the_defaults_of_its_class(group, content):
    """So that the class says the same in a program that does without Hydra."""
    made = locate(content["_target_"])()
    composed = {name: value for name, value in content.items() if name != "_target_"}
    assert {name: float_if_number(value) for name, value in composed.items()} == {
        name: float_if_number(getattr(made, name)) for name in composed
    }


def float_if_number(value):
    """YAML 1.1 reads 1e-2 as text, which Hydra does not."""
    try:
        return value if isinstance(value, bool | list) else float(value)
    except ValueError:
        return value


@pytest.mark.parametrize(
    ("key", "schema"), [("engine", EngineConfig), ("wandb", WandbConfig), ("metrics", MetricsConfig)]
)
def test_the_nodes_of_the_top_level_have_the_keys_and_defaults_of_their_schemas(key, schema):
    assert tiny.compose()[key] == dataclasses.asdict(schema())


def test_the_top_level_has_the_keys_of_its_schema():
    assert set(tiny.compose()) == {field.name for field in dataclasses.fields(TrainConfig)}


def test_with_no_override_it_is_plain_training_on_the_digits():
    config = tiny.compose()
    assert config["seed"] == 0
    assert config["agent"] == {"_target_": "continual.agents.base.Base"}
    assert config["env"]["dataset"]["_target_"] == "continual.datasets.digits.digits"


def values(node, inside=""):
    """Every leaf of a YAML file that sets a value, as (dotted key, line on which it ends)."""
    for key, value in node.value:
        name = f"{inside}{key.value}"
        if key.value == "defaults" and not inside:
            for entry in value.value:
                if isinstance(entry, yaml.MappingNode):
                    yield f"{name}.{entry.value[0][0].value}", entry.value[0][1].end_mark.line
        elif isinstance(value, yaml.MappingNode):
            yield from values(value, f"{name}.")
        elif key.value != "_target_":
            yield name, value.end_mark.line


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: str(Path(path).relative_to(FOLDER)))
def test_every_value_has_a_comment_on_its_line(path):
    text = path.read_text()
    lines = text.splitlines()
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20 or lines[1].startswith("# ")
    bare = [
        f"{key}: {lines[line]}"
        for key, line in values(yaml.compose(text))
        if len(lines[line].partition("  # ")[2]) < 5
        and not lines[line].endswith("}")  # a reference to another value
        # What a default is called says what it is; an option's own comments are in its file.
        and not key.startswith(("defaults.dataset", "defaults.override"))
    ]
    assert not bare


def test_numbers_in_which_replicas_differ_are_structure_nowhere():
    """Every agent's and optimiser's plain float is per replica, but for those that say why not."""
    structure = {}
    for group in ("agent", "optimizer"):
        for option in tiny.options(group):
            node = tiny.compose(f"{group}={option}")[group]
            marked = number_fields(locate(node["_target_"]))
            structure |= {
                f"{option}.{name}": value
                for name, value in node.items()
                if isinstance(value, float) and name not in marked
            }
    assert set(structure) <= {"adam.eps", "adamw.eps", "adam_o.eps", "trac.eps"}
    assert AGENTS
