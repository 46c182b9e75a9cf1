"""experiment=paper is the best configuration that the paper reports for an env, an agent and an optimizer."""

import csv
import subprocess
import sys

import hydra
import pytest
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from continual import building
from continual.cli.best import register_best
from continual.cli.composing import config_folder
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.config import check_config, num_steps
from continual.errors import UserError
from continual.schema import locate
from tests import tiny
from tests.datasets.writers import random_arrays, write_npz
from tests.sweep.subprocesses import ROOT

PROBLEMS = {
    "permuted_mnist": ("mnist", "mlp"),
    "random_label_mnist": ("mnist", "mlp"),
    "random_label_cifar": ("cifar10", "convnet"),
    "easy_hard_cifar100": ("cifar100", "convnet"),
    "continual_imagenet": ("imagenet32", "convnet"),
}
NUMBERS = {
    "base": [],
    "layer_norm": [],
    "l2_init": ["l2_weight"],
    "l2": ["l2_weight"],
    "shrink_and_perturb": ["shrink", "perturb_scale"],
    "continual_backprop": ["replacement_rate"],
    "crelu": [],
    "redo": ["recycle_period", "recycle_threshold"],
}
# As printed: a column for each problem; the step size; then the agent's numbers.
TABLES = {
    "adam": """
base | 1e-4 | 1e-4 | 1e-3 | 1e-4 | 1e-4
layer_norm | 1e-3 | 1e-4 | 1e-3 | 1e-4 | 1e-3
l2_init | 1e-3; 1e-2 | 1e-4; 1e-2 | 1e-3; 1e-2 | 1e-3; 1e-2 | 1e-3; 1e-3
l2 | 1e-3; 1e-2 | 1e-4; 1e-2 | 1e-4; 1e-2 | 1e-3; 1e-3 | 1e-3; 1e-3
shrink_and_perturb | 1e-3;1e-3,1e-2 | 1e-4;1e-4,1e-2 | 1e-3;1e-4,1e-2 | 1e-3;1e-4,1e-2 | 1e-3;1e-4,1e-2
continual_backprop | 1e-3; 1e-3 | 1e-3; 1e-3 | 1e-3; 1e-4 | 1e-3; 1e-4 | 1e-3; 1e-4
crelu | 1e-3 | 1e-3 | 1e-3 | 1e-3 | 1e-3
redo | 1e-3; 625, 0 | 1e-3; 30000, .1 | 1e-4; 30000, .1 | 1e-3; 1560, 0 | 1e-3; 120, 0
""",
    "sgd": """
base | 1e-2 | 1e-3 | 1e-2 | 1e-2 | 0.1
layer_norm | 1e-2 | 1e-3 | 1e-2 | 0.1 | 0.1
l2_init | 1e-2; 1e-2 | 1e-2; 1e-2 | 1e-2; 1e-2 | 1e-2; 1e-5 | 0.1; 1e-3
l2 | 1e-2; 1e-2 | 1e-2; 1e-2 | 1e-2; 1e-2 | 1e-2; 1e-4 | 0.1; 1e-3
shrink_and_perturb | 1e-2;1e-4,1e-2 | 1e-2;1e-4,1e-2 | 1e-2;1e-4,1e-2 | 1e-2;1e-5,1e-2 | 0.1;1e-4,1e-4
continual_backprop | 1e-2; 1e-3 | 1e-2; 1e-3 | 1e-2; 1e-3 | 1e-2; 1e-3 | 0.1; 1e-3
crelu | 1e-2 | 1e-2 | 1e-3 | 1e-2 | 1e-2
redo | 1e-2; 625, 0 | 1e-2; 30000, .1 | 1e-2; 30000, .1 | 1e-2; 1560, 0 | 0.1; 600, .1
""",
}


def cells():
    for optimizer, table in TABLES.items():
        for line in table.strip().splitlines():
            agent, *columns = (cell.strip() for cell in line.split("|"))
            for env, column in zip(PROBLEMS, columns, strict=True):
                lr, _, numbers = column.partition(";")
                values = [float(number) for number in numbers.split(",") if number]
                yield env, agent, optimizer, float(lr), dict(zip(NUMBERS[agent], values, strict=True))


CELLS = list(cells())


@pytest.fixture(autouse=True)
def registered():
    register_best(config_folder() / "best.yaml")


def compose(*overrides):
    with hydra.initialize_config_dir(str(config_folder()), **DEFAULTS_OF_1_3):
        composed = hydra.compose("train", ["device=cpu", *overrides], return_hydra_config=True)
    choices = dict(composed.hydra.runtime.choices)
    own = OmegaConf.masked_copy(composed, [name for name in composed if name != "hydra"])
    return OmegaConf.to_container(own, resolve=True), choices


@pytest.mark.parametrize(("env", "agent", "optimizer", "lr", "numbers"), CELLS)
def test_cell(env, agent, optimizer, lr, numbers):
    config = tiny.compose(
        "device=cpu", "experiment=paper", f"env={env}", f"agent={agent}", f"optimizer={optimizer}"
    )
    check_config(config)
    plain_env, plain_agent, plain_optimizer = (
        tiny.compose(choice) for choice in (f"env={env}", f"agent={agent}", f"optimizer={optimizer}")
    )
    assert config["env"] == plain_env["env"]
    assert config["optimizer"] == plain_optimizer["optimizer"] | {"lr": lr}
    assert numbers.keys() <= plain_agent["agent"].keys()
    assert config["agent"] == plain_agent["agent"] | numbers
    of_agent = {"crelu": {"activation": "crelu"}, "layer_norm": {"layer_norm": True}}.get(agent, {})
    assert config["network"] == plain_env["network"] | of_agent
    for name in ("seed", "metrics"):
        assert config[name] == plain_agent[name]


def test_the_table_has_these_cells_and_no_other():
    table = OmegaConf.to_container(OmegaConf.load(config_folder() / "best.yaml"))
    found = {
        (env, agent, optimizer)
        for optimizer, agents in table.items()
        for agent, envs in agents.items()
        for env in envs
    }
    assert found == {cell[:3] for cell in CELLS}


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["agent=l2_init", "agent.l2_weight=0.5"], ("agent", "l2_weight"), 0.5),
        (["optimizer=sgd", "optimizer.lr=0.5"], ("optimizer", "lr"), 0.5),
        (["optimizer=sgd", "optimizer.momentum=0.5"], ("optimizer", "momentum"), 0.5),
        (["env=easy_hard_cifar100", "network=mlp"], ("network", "_target_"), "continual.networks.mlp.MLP"),
        (["agent=crelu", "network.fraction_to_remove=0.3"], ("network", "fraction_to_remove"), 0.3),
        (["env.num_tasks=3"], ("env", "num_tasks"), 3),
        ([], ("env", "_target_"), "continual.envs.permuted.PermutedImages"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_line_says_wins(overrides, path, value):
    node, key = path
    assert compose("experiment=paper", *overrides)[0][node][key] == value


@pytest.mark.parametrize("overrides", [("agent=ewc",), ("env=random_label_digits",)], ids=" ".join)
def test_what_the_paper_does_not_report_is_refused(overrides):
    with pytest.raises(MissingConfigException, match="Could not find 'best/"):
        compose("experiment=paper", *overrides)


@pytest.mark.parametrize("env", PROBLEMS)
def test_each_problem_has_its_dataset_and_network(env):
    dataset, network = PROBLEMS[env]
    for overrides in ([], ["experiment=paper"]):
        chosen = compose(f"env={env}", *overrides)[1]
        assert (chosen["env"], chosen["env/dataset"], chosen["network"]) == (env, dataset, network)
    assert compose(f"env={env}", "network=deep_convnet")[1]["network"] == "deep_convnet"


def test_a_sweep_over_agents_and_optimizers(tmp_path):
    npz = write_npz(tmp_path / "tiny.npz", *random_arrays(40, 20, (1, 4, 4)))
    arguments = [
        "-m",
        "experiment=paper",
        "env=random_label_mnist",
        "agent=base,redo",
        "optimizer=adam,sgd",
        "env/dataset=npz",
        f"env.dataset.path={npz}",
        "env.num_tasks=1",
        "env.samples_per_task=40",
        "env.steps_per_task=2",
        "wandb.mode=disabled",
        "device=cpu",
        "hydra.launcher.workers=1",
        "hydra.sweep.dir=sweep",
    ]
    subprocess.run([sys.executable, str(ROOT / "scripts" / "train.py"), *arguments], cwd=tmp_path, check=True)
    found = {}
    for job in range(4):
        folder = tmp_path / "sweep" / str(job)
        choices = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime.choices
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        found[choices.agent, choices.optimizer] = config.optimizer.lr
        with open(folder / "tasks.csv") as file:
            assert len(list(csv.DictReader(file))) == 1
    assert found == {
        (agent, optimizer): lr
        for env, agent, optimizer, lr, _ in CELLS
        if env == "random_label_mnist" and agent in ("base", "redo")
    }


# Presets by paper: parameters of the network, steps of a run, and inputs and outputs of its data.
PUBLISHED = {
    "kumar2024": (89_610, 312_500, (1, 28, 28), 10),
    "dohare2024/slowly_changing_regression": (111, 3_000_000, (1, 1, 20), 1),
    "dohare2024/slowly_changing_regression_released": (111, 1_000_000, (1, 1, 20), 1),
    "dohare2024/online_permuted_mnist": (9_594_010, 48_000_000, (1, 28, 28), 10),
    "dohare2024/continual_imagenet": (177_218, 6_000_000, (3, 32, 32), 2),
    "elsayed2024/input_permuted_mnist": (282_160, 1_000_000, (1, 28, 28), 10),
    "elsayed2024/label_permuted_emnist": (287_747, 1_000_000, (1, 28, 28), 47),
    "elsayed2024/label_permuted_cifar10": (62_006, 1_000_000, (3, 32, 32), 10),
    "elsayed2024/label_permuted_mini_imagenet": (674_950, 1_000_000, (1, 1, 2048), 100),
    "elsayed2024_clipping/input_permuted_mnist": (282_160, 15_000_000, (1, 28, 28), 10),
    "farias2025/permuted_mnist": (89_610, 312_500, (1, 28, 28), 10),
    "farias2025/random_label_mnist": (89_610, 1_500_000, (1, 28, 28), 10),
    "farias2025/random_label_cifar": (58_842, 160_000, (3, 32, 32), 10),
    "farias2025/continual_imagenet": (58_034, 60_000, (3, 32, 32), 2),
    "lillo2026/permuted_mnist": (89_610, 312_500, (1, 28, 28), 10),
    "lillo2026/random_label_mnist": (89_610, 1_500_000, (1, 28, 28), 10),
    "lillo2026/random_label_cifar": (58_842, 1_500_000, (3, 32, 32), 10),
    "lillo2026/easy_hard_cifar100": (67_932, 23_400, (3, 32, 32), 100),
    "lillo2026/continual_imagenet": (58_034, 60_000, (3, 32, 32), 2),
}


def test_every_preset_is_in_the_table():
    folder = config_folder() / "experiment"
    names = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
    assert names == set(PUBLISHED) | {"paper", "quickstart"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_of_other_papers(name):
    parameters, steps, shape, outputs = PUBLISHED[name]
    config = tiny.compose(f"experiment={name}", "device=cpu")
    check_config(config)
    assert num_steps(config) == steps
    node = dict(config["network"])
    made = locate(node.pop("_target_"))(shape, outputs, **node)
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters


def test_a_preset_whose_data_are_absent_is_one_sentence(tmp_path):
    for name in ("elsayed2024/label_permuted_mini_imagenet", "elsayed2024/label_permuted_emnist"):
        config = tiny.compose(f"experiment={name}", "device=cpu", f"data_dir={tmp_path}")
        with pytest.raises(UserError) as caught:
            building.prepare(config)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


PRESETS_OF_SWEEPS = {
    "dohare2024": "dohare2024/online_permuted_mnist",
    "dohare2024_imagenet": "dohare2024/continual_imagenet",
    "elsayed2024": "elsayed2024/label_permuted_emnist",
    "lillo2026": "lillo2026/permuted_mnist",
}


def test_decays_of_upgds_paper_are_decoupled():
    """In AdamW as in its own method; of SGD both kinds are one."""
    with hydra.initialize_config_dir(str(config_folder()), **DEFAULTS_OF_1_3):
        composed = hydra.compose("train", ["experiment=elsayed2024/input_permuted_mnist"])
    assert composed.optimizer._target_ == "continual.optimizers.AdamW"
    assert composed.optimizer.weight_decay == 0


@pytest.mark.parametrize("sweep", PRESETS_OF_SWEEPS)
def test_grids_of_other_papers(sweep):
    preset = f"experiment={PRESETS_OF_SWEEPS[sweep]}"
    with hydra.initialize_config_dir(str(config_folder()), **DEFAULTS_OF_1_3):
        composed = hydra.compose("train", [f"sweep={sweep}", preset], return_hydra_config=True)
    params = OmegaConf.to_container(composed.hydra.sweeper.params)
    assert {"optimizer.lr", "seed"} <= set(params)
    for key in params:
        assert OmegaConf.select(composed, key) is not None, key
