import pytest
import yaml

from continual.errors import DataError
from continual.identity import canonical, results_part
from continual.report.configs import flatten, node_path, read_config


def test_keys_that_do_not_change_results_are_left_out(write_run):
    a = read_config(write_run("a"))
    b = read_config(
        write_run(
            "b",
            seed=1,
            nodes={"device": "cuda", "data_dir": "/x", "engine": {}, "wandb": {"mode": "online"}},
        )
    )
    assert a.identity == b.identity
    assert (a.seed, b.seed) == (0, 1)
    assert set(a.values) == {
        "agent._target_",
        "network._target_",
        "network.hidden_sizes",
        "env._target_",
        "env.num_tasks",
        "env.dataset._target_",
        "env.dataset.folder",
        "optimizer._target_",
        "optimizer.lr",
        "engine.precision",
    }


def test_what_decides_results_is_what_the_program_says_does(compose, write_run):
    """Of a real config: its hash and the report's groups go by the same keys."""
    config = compose("env=permuted_mnist", "agent=l2_init")
    nodes = {key: node for key, node in config.items() if key != "seed"}
    values = read_config(write_run("a", config["seed"], nodes=nodes)).values
    decisive = results_part(config)
    del decisive["seed"]
    assert values == flatten(decisive)


def test_precision_changes_results_and_is_float32_where_it_is_not_said(write_run):
    engines = {"old": {}, "new": {"precision": "float32", "threads": 2}, "bf16": {"precision": "bf16"}}
    old, new, bf16 = (
        read_config(write_run(name, nodes={"engine": engine})) for name, engine in engines.items()
    )
    assert old.identity == new.identity != bf16.identity


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, None, False),
        (0.001, "0.001", False),
        ([100, 100], [100.0, 100.0], True),
        ([0.9, 0.999], [0.999, 0.9], False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}, True),
        (2**53, 2**53 + 1, False),
    ],
)
def test_canonical(one, other, equal):
    assert (canonical(one) == canonical(other)) is equal


def test_interpolations_point_to_their_values(write_run):
    def values(name, env, agent):
        return read_config(write_run(name, nodes={"env": env, "agent": agent})).values

    pointing = values("a", {"steps": 625, "n": [1, "${env.steps}"]}, {"period": "${env.steps}"})
    assert pointing["agent.period"] == 625
    assert pointing["env.n"] == [1, 625]
    literal = values("b", {"steps": 625, "n": [1, 625]}, {"period": 625})
    assert canonical(pointing) == canonical(literal)


def test_interpolations_that_cannot_be_followed_stay_text(write_run):
    agent = {"a": "${data_dir}/x", "b": "${no_such_resolver:1}", "c": "${agent.missing}"}
    values = read_config(write_run("a", nodes={"agent": agent})).values
    assert {key: values[f"agent.{key}"] for key in agent} == agent


def test_options_of_groups_with_a_place_in_the_config(write_run):
    config = read_config(write_run("a", overrides=["agent=base", "+env.new=1", "~optimizer.lr"]))
    assert config.options == {
        "env": "random_label_digits",
        "env/dataset": "digits",
        "agent": "base",
        "network": "mlp",
        "optimizer": "adam",
    }
    assert config.overridden == {"agent", "env.new", "optimizer.lr"}


def test_only_the_config_has_to_be_there(write_run):
    folder = write_run("a")
    (folder / ".hydra" / "hydra.yaml").unlink()
    (folder / ".hydra" / "overrides.yaml").unlink()
    config = read_config(folder)
    assert config.options == {}
    assert config.overridden == frozenset()


@pytest.mark.parametrize("content", ["a: [", "", "text", b"\xff\xfe\xff"])
def test_damaged_config_is_named(write_run, content):
    path = write_run("a") / ".hydra" / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"config\.yaml") as error:
        read_config(path.parents[1])
    assert "\n" not in str(error.value)


def test_small_numbers_written_by_hydra_are_numbers(write_run):
    from omegaconf import OmegaConf

    folder = write_run("a")
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    config["optimizer"]["lr"] = 1e-5
    OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
    assert read_config(folder).values["optimizer.lr"] == 1e-5


@pytest.mark.parametrize(
    ("group", "path"),
    [("agent", "agent"), ("env/dataset", "env.dataset"), ("optimizer@agent.inner", "agent.inner")],
)
def test_node_path(group, path):
    assert node_path(group) == path


@pytest.mark.parametrize("target", ["continual.datasets.digits", "continual.errors.__doc__", "continual..x"])
def test_what_a_strangers_config_names_need_not_be_configurable(write_run, target):
    nodes = {"agent": {"_target_": target, "a": 1}}
    assert read_config(write_run("a", nodes=nodes)).identity
