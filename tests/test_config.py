"""What of a config decides results, what decides structure, and which configs cannot be run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from continual.config import (
    EngineConfig,
    MetricsConfig,
    WandbConfig,
    check_config,
    check_here,
    config_hash,
    device,
    differing_keys,
    results_part,
    structure,
)
from continual.errors import ConfigError
from continual.sweep.entry import config_folder
from tests import tiny

Compose = Callable[..., dict[str, Any]]


def changed(config: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of a config with one `key=value` set, whether or not the key was there."""
    node = OmegaConf.create(config)
    name, _, value = override.partition("=")
    OmegaConf.update(node, name, OmegaConf.from_dotlist([f"value={value}"])["value"], force_add=True)
    copied = OmegaConf.to_container(node)
    assert isinstance(copied, dict)
    return {str(key): value for key, value in copied.items()}


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
        "env.dataset.data_dir=elsewhere",
        "env.dataset.download=true",
        "env.dataset.verify=false",
    ],
)
def test_what_does_not_decide_results(override: str) -> None:
    config = tiny.compose("env=permuted_mnist")
    other = changed(config, override)
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
        "network.hidden_size=3",
        "env.num_tasks=3",
        "env.dataset._target_=continual.datasets.mnist.fashion_mnist",
        "metrics.forgetting=true",
        "engine.precision=bf16",
    ],
)
def test_what_decides_results(override: str) -> None:
    config = tiny.compose("env=permuted_mnist", "agent=l2_init")
    other = changed(config, override)
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
    ("network.hidden_size=3", False),
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


@pytest.mark.parametrize(
    ("node", "kind"), [("engine", EngineConfig), ("wandb", WandbConfig), ("metrics", MetricsConfig)]
)
def test_the_yaml_gives_every_key_its_default(node: str, kind: type) -> None:
    yaml = OmegaConf.load(config_folder() / "train.yaml")[node]
    assert OmegaConf.to_container(yaml) == vars(kind())


@pytest.mark.parametrize(("name", "kind"), [("auto", "cpu"), ("cpu", "cpu")])
def test_devices_of_a_machine_without_a_gpu(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device(name).type == kind


@pytest.mark.parametrize(
    ("name", "found"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_devices_of_a_machine_with_two_gpus(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device(name) == torch.device(found)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"cuda:2 was asked for, but the last CUDA device here is cuda:1\."):
        device("cuda:2")


# Beyond what the command line's tests say (tests/sweep/test_bad_input.py): what needs a config of one's own.
@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("agent=null", "agent: must be a valid dictionary, not None."),
        (
            "agent._target_=continual.optimizers.SGD",
            "agent._target_: continual.optimizers.SGD is not a subclass of Agent.",
        ),
        ("env.dataset=mnist", "env.dataset: missing; choose one with env/dataset=..."),
        ("env.dataset=null", "env.dataset: missing; choose one with env/dataset=..."),
        ("env.dataset.path=3", "env.dataset.path: must be a valid string, not 3."),
        (
            "engine.checkpoint_minutes=-1",
            "engine.checkpoint_minutes: must be greater than or equal to 0, not -1.",
        ),
        ("metrics.task_fractions=[0.5,1]", "metrics.task_fractions[1]: must be less than 1, not 1."),
        ("wandb.tags=[1]", "wandb.tags[0]: must be a valid string, not 1."),
    ],
)
def test_configs_that_cannot_be_run(compose: Compose, override: str, wanted: str) -> None:
    config = compose()
    check_config(config)
    with pytest.raises(ConfigError) as error:
        check_config(changed(config, override))
    assert str(error.value) == wanted


@pytest.mark.parametrize(("key", "value"), [("cuda_graph", True), ("precision", "tf32")])
def test_what_needs_a_gpu(key: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.compose("device=auto")
    config["engine"][key] = value
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_here(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"engine\.{key}: \w+ needs a GPU"):
        check_here(config)


def test_runs_of_the_time_before_precision_was_a_choice_were_in_float32() -> None:
    config = tiny.compose()
    before = {**config, "engine": {k: v for k, v in config["engine"].items() if k != "precision"}}
    assert config_hash(before) == config_hash(config)
