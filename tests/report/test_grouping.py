import pytest

from continual.errors import ConfigError
from continual.report.configs import RunConfig
from continual.report.grouping import group_runs, grouped_by


def config(values, seed=0, overridden=(), **options):
    return RunConfig(values, seed, options, tuple(overridden))


def agent(name, *overridden, seed=0, **values):
    flat = {"agent._target_": f"agents.{name}", "optimizer._target_": "optimizers.Adam"}
    flat |= {f"agent.{key}": value for key, value in values.items()}
    return config(flat, seed, overridden, agent=name, optimizer="adam")


def test_runs_that_differ_in_their_seed_are_one_group():
    grouping = group_runs([agent("base", seed=seed) for seed in range(3)])
    assert grouping.members == [0, 0, 0]
    assert grouping.groups == [{"agent": "base"}]
    assert grouping.common == {"optimizer": "adam"}


def test_an_option_stands_for_its_target_and_its_defaults():
    grouping = group_runs([agent("l2_init", l2_weight=0.01), agent("base")])
    assert grouping.members == [1, 0]
    assert grouping.keys == ["agent", "agent.l2_weight"]
    assert grouping.groups == [
        {"agent": "base", "agent.l2_weight": "-"},
        {"agent": "l2_init", "agent.l2_weight": 0.01},
    ]
    assert grouping.shown == ["agent"]


@pytest.mark.parametrize(
    ("configs", "shown"),
    [
        ([agent("base"), agent("l2", w=1), agent("l2", w=2)], ["agent", "agent.w"]),
        ([agent("l1", w=1), agent("l2", w=2)], ["agent"]),
        ([agent("l1", "agent.w", w=1), agent("l2", "agent.w", w=2)], ["agent", "agent.w"]),
        ([agent("l2", w=1), agent("l2", w=2)], ["agent.w"]),
        ([agent("l2", w=1), agent("l2")], ["agent.w"]),
    ],
    ids=["differs within an option", "a default", "given by hand", "one option", "absent"],
)
def test_what_is_needed_to_tell_groups_apart_is_shown(configs, shown):
    grouping = group_runs(configs)
    assert grouping.shown == shown
    shown_values = {tuple(str(group[key]) for key in shown) for group in grouping.groups}
    assert len(shown_values) == len(configs)


def test_numbers_are_sorted_by_size_and_absent_ones_come_first():
    weights = [0.1, 1e-5, 10, 2]
    grouping = group_runs([*(agent("l2", w=weight) for weight in weights), agent("l2")])
    assert [group["agent.w"] for group in grouping.groups] == ["-", 1e-5, 0.1, 2, 10]
    assert grouping.members == [2, 1, 4, 3, 0]


def test_options_with_one_target_are_told_apart_by_name():
    """Two datasets of one loader: their file names and checksums say nothing to a reader."""

    def dataset(name, scale):
        values = {
            "env._target_": "Env",
            "env.dataset._target_": "idx",
            "env.dataset.file": f"{name}.gz",
            "env.dataset.scale": scale,
        }
        return RunConfig(values, 0, {"env": "labels", "env/dataset": name}, frozenset())

    grouping = group_runs([dataset("mnist", 0.5), dataset("fashion_mnist", 0.25)])
    assert grouping.keys == ["env/dataset", "env.dataset.file", "env.dataset.scale"]
    assert grouping.shown == ["env/dataset"]
    assert grouping.common == {"env": "labels"}


def test_one_config_under_two_option_names_is_one_group():
    runs = [config({"agent._target_": "L2", "agent.w": 1}, agent=name) for name in ("weak", "l2")]
    other = config({"agent._target_": "L2", "agent.w": 2}, agent="l2")
    grouping = group_runs([*runs, other])
    assert grouping.members == [1, 1, 0]
    assert [group["agent"] for group in grouping.groups] == ["l2", "l2 or weak"]


def test_one_option_name_for_two_targets_shows_the_targets():
    grouping = group_runs([config({"agent._target_": target}, agent="mine") for target in ("B", "A")])
    assert grouping.groups == [{"agent._target_": "A"}, {"agent._target_": "B"}]
    assert grouping.members == [1, 0]


def test_environment_then_agent_then_the_rest():
    def run(name):
        values = {f"{node}._target_": name for node in ("optimizer", "agent", "env")}
        return config(values, optimizer=name, agent=name, env=name)

    assert group_runs([run("a"), run("b")]).keys == ["env", "agent", "optimizer"]
    assert list(group_runs([run("a"), run("a")]).common) == ["env", "optimizer"]


def test_values_of_any_type_are_grouped():
    values = [True, 1, None, [1, 2], [2, 1], "1", {}]
    grouping = group_runs([agent("l2", w=value) for value in values])
    assert len(grouping.groups) == len(values)
    assert sorted(grouping.members) == list(range(len(values)))


def by(keys, *configs):
    return grouped_by(group_runs(configs), [*configs], keys)


def test_keys_that_tell_the_groups_apart_name_them():
    l2 = [agent("l2", l2_weight=weight) for weight in (0.1, 0.2)]
    grouping = by(["agent.l2_weight", "optimizer"], *l2)
    assert grouping.shown == ["agent.l2_weight", "optimizer"]
    assert grouping.groups == [
        {"agent.l2_weight": 0.1, "optimizer": "adam"},
        {"agent.l2_weight": 0.2, "optimizer": "adam"},
    ]


def test_keys_that_would_merge_groups_are_refused_with_what_differs():
    configs = [agent("base"), *(agent("l2", l2_weight=w, extra=w) for w in (0.1, 0.2))]
    with pytest.raises(ConfigError, match=r"differ in agent\.l2_weight, agent\.extra;"):
        by(["agent"], *configs)


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigError, match=r"--by agnt: no run has such a key; .* differ in agent"):
        by(["agnt"], agent("base"), agent("l2"))
