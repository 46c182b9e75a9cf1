import pytest

from continual.report.published import published, published_beside
from continual.report.runs import load

from .conftest import CONFIG

SETTING = {
    "env": {
        **CONFIG["env"],
        "_target_": "continual.envs.permuted.PermutedImages",
        "num_tasks": 20,
        "steps_per_task": 625,
        "batch_size": 16,
    },
    "network": {"hidden_sizes": [100, 100], "activation": "relu", "layer_norm": False},
    "optimizer": {"lr": 0.001, "weight_decay": 0},
}
OPTIONS = {"env": "permuted_mnist", "env/dataset": "mnist"}
PLUS = {"_target_": "continual.agents.l2_init.L2Init", "l2_weight": 0.001}
AGENTS = {
    "l2_init": {"l2_weight": 0.001, "sample_init_values": False},
    "ewc": {"ewc_weight": 10, "use_fisher": True},
    "l2_init_plus_ewc": {"ewc_weight": 10.0, "use_fisher": True, "plus": PLUS},
}
TABLE_2 = {
    "l2_init": (-0.634, -0.113, 0.811),
    "ewc": (-0.39, -0.078, 0.758),
    "l2_init_plus_ewc": (-0.511, -0.078, 0.8),
}


def test_the_table_stands_beside_runs_of_its_configurations(write_run, tmp_path):
    for agent, numbers in AGENTS.items():
        write_run(agent, 0, nodes={**SETTING, "agent": numbers}, options={**OPTIONS, "agent": agent})
    runs = load(tmp_path)
    found = {runs.groups.at[group, "agent"]: entry.numbers for group, entry in published_beside(runs).items()}
    assert set(found) == set(TABLE_2)
    for agent, numbers in found.items():
        assert (
            numbers["backward_transfer"],
            numbers["one_step_backward_transfer"],
            numbers["total_average_online_accuracy"],
        ) == TABLE_2[agent]


@pytest.mark.parametrize(
    "nodes",
    [
        {"agent": {"l2_weight": 0.01, "sample_init_values": False}},
        {"agent": {"l2_weight": 0.001, "sample_init_values": True}},
        {"optimizer": {"lr": 0.0001, "weight_decay": 0}},
        {"env": {**SETTING["env"], "num_tasks": 500}},
        {"network": {**SETTING["network"], "layer_norm": True}},
        {"network": {**SETTING["network"], "init": "kaiming_uniform"}},
        {"network": {**SETTING["network"], "dropout": 0.5}},
        {"env": {**SETTING["env"], "dataset": {"normalise": "zero_to_one"}}},
        {"env": {**SETTING["env"], "samples_per_task": 1000}},
        {"env": {**SETTING["env"], "optimizer_state": "renew"}},
        {"optimizer": {**SETTING["optimizer"], "betas": [0, 0.99]}},
        {"agent": {**AGENTS["l2_init"], "plus": PLUS}},
    ],
)
def test_another_configuration_has_no_published_numbers(write_run, tmp_path, nodes):
    nodes = {**SETTING, "agent": AGENTS["l2_init"], **nodes}
    write_run("0", 0, nodes=nodes, options={**OPTIONS, "agent": "l2_init"})
    assert published_beside(load(tmp_path)) == {}


def test_every_entry_names_its_source():
    assert len(published()) == 3
    for entry in published():
        assert "arXiv 2308.11958" in entry.source
