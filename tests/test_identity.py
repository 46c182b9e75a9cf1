"""What of a config decides results, what decides structure, and when two configs are equal."""

from pathlib import Path

import pytest

from continual.envs.permuted import PermutedImages
from continual.identity import (
    canonical,
    config_hash,
    differing_keys,
    obstacles,
    results_part,
    resume_hash,
    structure,
)
from tests import tiny


@pytest.mark.parametrize(
    "override",
    [
        "device=cuda",
        "data_dir=elsewhere",
        "engine.compile=true",
        "engine.cuda_graph=false",
        "engine.max_replicas=3",
        "engine.chunk_steps=7",
        "engine.checkpoint_minutes=0",
        "engine.threads=2",
        "wandb.mode=online",
        "wandb.tags=[a]",
        "notes=second try",
        "engine.keep_checkpoint=false",
        "env.dataset.data_dir=elsewhere",
        "env.dataset.download=true",
        "env.dataset.verify=false",
    ],
)
def test_what_does_not_decide_results(override: str) -> None:
    config = tiny.compose("env=permuted_mnist")
    other = tiny.changed(config, override)
    assert other != config
    assert config_hash(other) == config_hash(config)
    assert differing_keys(results_part(other), results_part(config)) == []


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "agent.l2_weight=0.5",
        "agent.sample_init_values=true",
        "optimizer.lr=0.5",
        "network.hidden_sizes=[3,3]",
        "env.num_tasks=3",
        "env.dataset._target_=continual.datasets.mnist.fashion_mnist",
        "metrics.forgetting=true",
        "engine.precision=bf16",
    ],
)
def test_what_decides_results(override: str) -> None:
    config = tiny.compose("env=permuted_mnist", "agent=l2_init")
    other = tiny.changed(config, override)
    assert config_hash(other) != config_hash(config)
    assert differing_keys(results_part(other), results_part(config)) == [override.partition("=")[0]]


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    config = tiny.compose("agent=l2_init")
    backwards = {name: config[name] for name in reversed(config)}
    assert list(backwards) != list(config)
    assert config_hash(backwards) == config_hash(config)


def test_the_keys_in_which_configs_differ() -> None:
    one = {"a": 1, "b": {"c": [1, 2], "d": {"e": None}}, "f": 3}
    other = {"a": 1, "b": {"c": [1, 3], "d": {"e": 0}}, "g": 3}
    assert differing_keys(one, other) == ["b.c", "b.d.e", "f", "g"]
    assert differing_keys(one, one) == []
    assert differing_keys({"a": {"b": 1}}, {"a": 2}) == ["a"]


# An override, and whether runs with and without it train as one population.
STRUCTURE = [
    ("seed=1", True),
    ("wandb.name=mine", True),
    ("optimizer.lr=0.5", True),
    ("optimizer.momentum=0.5", True),
    ("optimizer.momentum=0", False),
    ("optimizer.weight_decay=0.5", False),
    ("agent.l2_weight=0.5", True),
    ("agent.l2_weight=0", True),
    ("agent.sample_init_values=true", False),
    ("agent=l2", False),
    ("optimizer.nesterov=true", False),
    ("network.hidden_sizes=[3,3]", False),
    ("network.layer_norm=true", False),
    ("env.num_tasks=3", False),
    ("env.labels=permuted", False),
    ("env/dataset=mnist", False),
    ("engine.compile=true", False),
    ("engine.precision=bf16", False),
    ("metrics.gradients=true", False),
]


@pytest.mark.parametrize(("override", "together"), STRUCTURE)
def test_what_replicas_of_a_population_may_differ_in(override: str, together: bool) -> None:
    base = ("agent=l2_init", "optimizer=sgd", "optimizer.momentum=0.9")
    same = structure(tiny.compose(*base)) == structure(tiny.compose(*base, override))
    assert same == together


def test_strengths_that_can_be_switched_off_are_alike_where_they_are_off() -> None:
    one, other = (tiny.compose("optimizer=sgd", f"optimizer.weight_decay={zero}") for zero in ("0", "0.0"))
    assert structure(one) == structure(other)


def test_runs_of_the_time_before_precision_was_a_choice_were_in_float32() -> None:
    config = tiny.compose()
    before = {**config, "engine": {k: v for k, v in config["engine"].items() if k != "precision"}}
    assert config_hash(before) == config_hash(config)


def test_numbers_of_one_value_are_one_number() -> None:
    """A run that was stopped with `l2_weight=1` is the one that is resumed with `l2_weight=1.0`."""
    one, other = (tiny.compose("agent=l2_init", f"agent.l2_weight={w}") for w in ("1", "1.0"))
    assert repr(one["agent"]["l2_weight"]) != repr(other["agent"]["l2_weight"])
    assert config_hash(one) == config_hash(other)
    assert structure(one) == structure(other)
    assert differing_keys(results_part(one), results_part(other)) == []


def test_a_hash_and_a_comparison_agree_on_every_change() -> None:
    config = tiny.compose("agent=redo", "env=permuted_mnist", "optimizer=sgd")
    for override in ("agent.recycle_period=1", "optimizer.lr=1", "env.resample_images=true", "seed=7"):
        other = tiny.changed(config, override)
        differ = differing_keys(results_part(config), results_part(other))
        assert differ == [override.partition("=")[0]]
        assert config_hash(config) != config_hash(other)


def test_an_option_at_its_default_is_one_that_is_absent() -> None:
    """So that an option which a later version adds does not change what earlier runs are."""
    config = tiny.compose("optimizer=sgd", "agent=l2_init")
    earlier = {**config, "optimizer": {"_target_": config["optimizer"]["_target_"], "lr": 0.01}}
    assert set(earlier["optimizer"]) < set(config["optimizer"])
    assert config_hash(earlier) == config_hash(config)
    assert config_hash(tiny.changed(config, "optimizer.nesterov=true")) != config_hash(config)


def test_false_is_not_zero_where_zero_is_the_default() -> None:
    config = tiny.compose("optimizer=sgd")
    for value in ("false", "null"):
        assert config_hash(tiny.changed(config, f"optimizer.momentum={value}")) != config_hash(config)


def test_what_is_not_of_this_program_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_module.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "strangers_module.Agent", "strength": 1}
    same = {"_target_": "strangers_module.Agent", "strength": 1.0}
    assert canonical(node) == canonical(same) != canonical({**node, "strength": True})


def test_integers_beyond_the_exact_range_of_a_float_differ() -> None:
    assert canonical(2**53 + 1) != canonical(2**53)
    assert canonical(2**53) == canonical(2.0**53)


def test_more_tasks_are_no_obstacle_to_a_resume() -> None:
    saved = tiny.compose("env=permuted_mnist", "env.num_tasks=3")
    longer = tiny.changed(saved, "env.num_tasks=5")
    assert config_hash(longer) != config_hash(saved)
    assert resume_hash(longer) == resume_hash(saved)
    assert obstacles(saved, longer) == []
    assert obstacles(longer, saved) == ["env.num_tasks"]
    assert obstacles(saved, tiny.changed(longer, "env.steps_per_task=7")) == ["env.steps_per_task"]


def test_where_tasks_depend_on_their_number_more_of_them_are_another_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PermutedImages, "tasks_depend_on_their_number", True)
    saved = tiny.compose("env=permuted_mnist", "env.num_tasks=3")
    longer = tiny.changed(saved, "env.num_tasks=5")
    assert resume_hash(longer) != resume_hash(saved)
    assert obstacles(saved, longer) == ["env.num_tasks"]
