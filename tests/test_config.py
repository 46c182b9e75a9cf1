"""Which configs cannot be run, and why."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from continual.cli.composing import config_folder
from continual.config import (
    EngineConfig,
    MetricsConfig,
    WandbConfig,
    check_config,
    check_here,
    with_defaults,
)
from continual.errors import ConfigError
from tests import tiny

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("node", "kind"), [("engine", EngineConfig), ("wandb", WandbConfig), ("metrics", MetricsConfig)]
)
def test_the_yaml_gives_every_key_its_default(node: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(variable, raising=False)
    yaml = OmegaConf.load(config_folder() / "train.yaml")[node]
    assert OmegaConf.to_container(yaml, resolve=True) == vars(kind())


# Beyond what the command line's tests say (tests/cli/test_bad_input.py): what needs a config of one's own.
@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("agent=null", "agent: must be a valid dictionary, not None."),
        (
            "agent._target_=continual.optimizers.SGD",
            "agent._target_: continual.optimizers.SGD is not a subclass of Agent.",
        ),
        ("network.num_classes=3", "network.num_classes: the environment says what it is; leave it out."),
        ("network.input_shape=x", "network.input_shape: the environment says what it is; leave it out."),
        ("env.dataset=mnist", "env.dataset: missing; choose one with env/dataset=..."),
        ("env.dataset=null", "env.dataset: missing; choose one with env/dataset=..."),
        ("env.dataset.path=3", "env.dataset.path: must be a valid string, not 3."),
        (
            "engine.checkpoint_minutes=-1",
            "engine.checkpoint_minutes: must be greater than or equal to 0, not -1.",
        ),
        ("metrics.task_fractions=[0.5,1]", "metrics.task_fractions[1]: must be less than 1, not 1."),
        (
            "wandb.project=a/b",
            "wandb.project: must be 1 to 128 characters without any of / \\ # ? % :, not 'a/b'.",
        ),
        (
            f"wandb.project={'p' * 129}",
            f"wandb.project: must be 1 to 128 characters without any of / \\ # ? % :, not '{'p' * 129}'.",
        ),
        (
            "wandb.entity='a b'",
            "wandb.entity: must be 1 to 128 characters without spaces or any of / \\ # ? % :, not 'a b'.",
        ),
        ("wandb.group=' '", "wandb.group: must be 1 to 128 characters, not ' '."),
        (f"wandb.name={'n' * 129}", f"wandb.name: must be 1 to 128 characters, not '{'n' * 129}'."),
        (f"wandb.tags=[a,{'t' * 65}]", f"wandb.tags[1]: must be 1 to 64 characters, not '{'t' * 65}'."),
        ("wandb.tags=[1]", "wandb.tags[0]: must be a valid string, not 1."),
    ],
)
def test_configs_that_cannot_be_run(compose: Compose, override: str, wanted: str) -> None:
    config = compose()
    check_config(config)
    with pytest.raises(ConfigError) as error:
        check_config(tiny.changed(config, override))
    assert str(error.value) == wanted


@pytest.mark.parametrize(
    ("node", "key", "wanted"),
    [
        ("engine", "threads", "engine.threads: missing; give it a value."),
        ("metrics", "forgetting", "metrics.forgetting: missing; give it a value."),
        ("wandb", "mode", "wandb.mode: missing; give it a value."),
        ("env", "num_tasks", "env.num_tasks: missing; give it a value."),
        ("env", "_target_", "env._target_: missing; it must name a class"),
    ],
)
def test_keys_that_are_missing(compose: Compose, node: str, key: str, wanted: str) -> None:
    config = compose()
    del config[node][key]
    with pytest.raises(ConfigError, match=f"^{re.escape(wanted)}"):
        check_config(config)


def test_what_was_added_since_a_config_was_frozen(compose: Compose) -> None:
    config = compose()
    del config["engine"]["keep_checkpoint"]
    assert with_defaults(config) == compose()


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        (
            f"seed={2**63}",
            "seed: must be less than or equal to 9223372036854775807, not 9223372036854775808.",
        ),
        ("engine.threads=257", "engine.threads: must be less than or equal to 256, not 257."),
        ("env.num_tasks=1000001", "env.num_tasks: must be less than or equal to 1000000, not 1000001."),
        (
            "network.hidden_sizes=[9,0]",
            "network.hidden_sizes[1]: must be greater than or equal to 1, not 0.",
        ),
        (
            "metrics.task_fractions=[0.1234567,0.12345671]",
            "metrics.task_fractions: 0.123457, 0.123457 name their columns and must all be different.",
        ),
    ],
)
def test_numbers_and_names_that_are_refused(compose: Compose, override: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(tiny.changed(compose(), override))
    assert str(error.value) == wanted


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.getcwd"},
        {"_target_": "continual.schema.locate", "target": "os.getcwd"},
    ],
)
def test_a_loader_says_that_it_returns_a_dataset(compose: Compose, node: dict[str, str]) -> None:
    """Whatever else a stranger's config names, even of this program, is not called to find out."""
    config = compose()
    config["env"]["dataset"] = node
    with pytest.raises(ConfigError, match=r"does not say that it returns a Dataset \(-> Dataset\)\.$"):
        check_config(config)


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
